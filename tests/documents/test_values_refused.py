"""What is refused is refused at the same place wherever the Executor's class is, and what is taken is taken there too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import httpx
import orjson
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.doubles.value_kinds import MODELS
from tests.doubles.value_places import served

pytestmark = pytest.mark.processes

WIDE = str(2**70)
#: By kind: values that the class takes, though some are of another type, and what it makes of them as JSON has it.
TAKEN: dict[str, list[tuple[Any, Any]]] = {
    "int": [("5", 5), (5.0, 5), (True, 1), (2**64 - 1, 2**64 - 1)],
    "float": [("0.7", 0.7), (1, 1.0), ("1e3", 1000.0)],
    "bool": [(1, True), ("true", True), ("no", False)],
    "list": [(["1", 2], [1, 2])],
    "list-of-float": [(["1", 2], [1.0, 2.0])],
    "bytes": [("YQ==", "YQ==")],
    "dict-by-int": [({"1": "YQ=="}, {"1": "YQ=="})],
    "decimal": [("1.50", "1.50"), (1.5, "1.5")],
    "timedelta": [(5, "PT5S"), ("P1D", "P1D")],
    "enum": [(1, 1), ("b", "b")],
    "union": [(1, 1), ("a", "a")],
    "tensor": [([1, 2.5], [1.0, 2.5])],
    "uint8": [([1, 255], [1, 255])],
    "shaped": [([1, 2, 3, 4], [[1, 2], [3, 4]])],
    "document": [({"id": "b", "n": "3", "b": "YQ==", "v": [1]}, {"id": "b", "n": 3, "v": [1], "b": "YQ=="})],
    "none-for-str": [(None, None), ("x", "x")],
    "none-for-tensor": [(None, None), ([1], [1])],
    "text-for-int": [("many", "many"), ("3", 3)],
}
#: By kind: what is sent, and the whole document that is answered, where a class writes its JSON itself.
WRITTEN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "serialized": ({"id": "a", "value": 3}, {"id": "a", "value": 103}),
    "serialized-whole": ({"value": 3}, {"other": 3}),
    "serialized-by-type": ({"id": "a", "value": 3}, {"id": "a", "value": "3"}),
    "computed": ({"value": 3}, {"value": 3, "twice": 6}),
    "excluded": ({"id": "a", "value": 7}, {"id": "a"}),
    "aliased": ({"id": "a", "val-ue": 3}, {"id": "a", "val-ue": 3}),
    "aliased-out": ({"id": "a", "value": 3}, {"id": "a", "out": 3}),
    "secret": ({"value": "hush"}, {"value": "**********"}),
    "infinite": ({"id": "a"}, {"id": "a", "value": None}),
    "open": ({"value": 1, "more": 2}, {"value": 1, "more": 2}),
}
#: By kind: values that it refuses, and the places within the field of all that is wrong.
REFUSED: dict[str, list[tuple[Any, list[list[Any]]]]] = {
    "str": [(5, [[]]), (None, [[]])],
    "int": [("x", [[]]), (1.5, [[]]), (None, [[]]), ([1], [[]]), (WIDE, [[]]), (1e300, [[]])],
    "optional": [("x", [[]]), (WIDE, [[]])],
    "float": [("x", [[]]), (None, [[]])],
    "bool": [("maybe", [[]]), (2, [[]])],
    "list": [(["x", 1, "y"], [[0], [2]]), (5, [[]]), ([1, WIDE], [[1]])],
    "set": [(["x"], [[0]])],
    "dict": [({"a": "x", "b": "y"}, [["a"], ["b"]])],
    "bytes": [("*", [[]]), (5, [[]])],
    "tensor": [(["x"], [[]]), ("a", [[]]), (None, [[]])],
    "uint8": [([300], [[]]), ([-1], [[]])],
    "float32": [([1e300], [[]])],
    "shaped": [([1, 2, 3], [[]])],
    "constrained": [(0, [[]]), (100, [[]]), (WIDE, [[]])],
    "timedelta": [(1e300, [[]]), ("P999999999999D", [[]]), (WIDE, [[]]), ("-P999999999DT86400S", [[]])],
    "decimal": [("x", [[]])],
    "datetime": [(1e300, [[]]), ("x", [[]])],
    "uuid": [("x", [[]])],
    "document": [({"n": "x", "b": "*"}, [["n"], ["b"]])],
    "documents": [([{"n": 1}, {"b": "*", "v": ["x"]}], [[1, "v"], [1, "b"]])],
    "list-of-small": [([{"n": "x"}, {"n": 1, "at": "x"}], [[0, "n"], [1, "at"]])],
    "none-for-str": [(5, [[]])],
    "text-for-int": [("few", [[]])],
    "validated": [(0, [[]])],
}


class Asking(NamedTuple):
    """What asks one place."""

    http: httpx.Client
    socket: ClientConnection

    def ways(self, kind: str, doc: dict[str, Any]) -> Iterator[tuple[list[Any], int, Any]]:
        """A document sent in every way that JSON is: where it stands there, and the status and answer."""
        name = MODELS[kind].__name__
        listed, alone = ["body", "data", f"list[{name}]", 0], ["body", "data", name]
        for place, data in ((listed, [doc]), (alone, doc)):
            answer = self.http.post(f"{kind}/echo", json={"data": data})
            body = answer.json()
            yield place, answer.status_code, body["data"][0] if answer.status_code == 200 else body["detail"]
        for place, method, body in ((alone, "POST", {"data": doc}), (["query"], "GET", doc)):
            answer = self.http.request(method, f"{kind}/stream", json=body)
            yield place, answer.status_code, _first(answer)
        for endpoint in ("echo", "stream"):
            self.socket.send(orjson.dumps({"id": 1, "endpoint": f"/{kind}/{endpoint}", "data": [doc]}).decode())
            event = self._event()
            if event["event"] == "error":
                yield listed, event["status"], event["detail"]
            else:
                self._event()
                yield listed, 200, event["data"][0] if endpoint == "echo" else event["data"]

    def _event(self) -> Any:
        """The next event that is no ping."""
        while (event := orjson.loads(self.socket.recv()))["id"] is None:
            pass
        return event


@pytest.fixture(scope="module")
def all_places() -> Iterator[dict[str, Asking]]:
    kept = httpx.Limits(keepalive_expiry=1.0)  # shorter than the server's, which may close one just as it is used
    with served() as found, ExitStack() as stack:
        yield {
            name: Asking(
                stack.enter_context(httpx.Client(base_url=place.url, timeout=60, limits=kept)),
                stack.enter_context(connect(f"ws{place.url.removeprefix('http')}/-/ws")),
            )
            for name, place in found.items()
        }


@pytest.fixture(params=["worker", "external", "pool"])
def place(request: pytest.FixtureRequest, all_places: dict[str, Asking]) -> Asking:
    return all_places[request.param]


def _first(answer: httpx.Response) -> Any:
    """The first document of a stream, or what is told in its place."""
    if answer.status_code != 200:
        return answer.json()["detail"]
    return orjson.loads(answer.text.split("data: ", 1)[1].split("\r\n", 1)[0])


@pytest.mark.parametrize("kind", TAKEN)
def test_what_the_class_takes_is_taken_wherever_it_is(kind: str, place: Asking) -> None:
    for value, made in TAKEN[kind]:
        for where, status, answer in place.ways(kind, {"id": "a", "value": value}):
            assert (200, made) == (status, answer["value"] if status == 200 else answer), (value, where)


@pytest.mark.parametrize("kind", WRITTEN)
def test_the_class_writes_its_json_wherever_it_is(kind: str, place: Asking) -> None:
    sent, written = WRITTEN[kind]
    for where, status, answer in place.ways(kind, sent):
        assert (200, written) == (status, answer), where


@pytest.mark.parametrize("kind", REFUSED)
def test_what_the_class_refuses_is_refused_at_the_same_place_wherever_it_is(kind: str, place: Asking) -> None:
    for value, within in REFUSED[kind]:
        for where, status, answer in place.ways(kind, {"id": "a", "value": value}):
            assert 422 == status, (value, where, answer)
            assert [[*where, "value", *rest] for rest in within] == [entry["loc"] for entry in answer], (value, where)


@pytest.mark.parametrize("n", ["5", "x", WIDE])
def test_a_number_comes_in_a_query(n: str, place: Asking) -> None:
    answer = place.http.get("several/stream", params={"n": n, "name": "a", "id": "b"})
    if n == "5":
        assert {"id": "b", "n": 5, "blob": "", "v": None, "name": "a"} == _first(answer)
    else:
        assert (422, [["query", "n"]]) == (answer.status_code, [entry["loc"] for entry in answer.json()["detail"]])


def test_all_wrong_fields_of_all_documents_are_reported(place: Asking) -> None:
    good = {"n": 1, "name": "a"}
    bad = {"n": "x", "blob": "*", "v": ["x"]}
    answer = place.http.post("several/echo", json={"data": [good, bad, good, bad]})
    wrong = [[index, name] for index in (1, 3) for name in ("n", "blob", "v", "name")]
    assert 422 == answer.status_code
    assert [["body", "data", "list[Several]", *at] for at in wrong] == [e["loc"] for e in answer.json()["detail"]]


@pytest.mark.parametrize("data", [5, "x", [5], [{"n": 1, "name": "a"}, None, [], {"n": "x", "name": "a"}]])
def test_what_is_no_document_is_refused_with_the_others(data: Any, place: Asking) -> None:
    answer = place.http.post("several/echo", json={"data": data})
    wrong: list[list[Any]] = [["list[Several]", 0]] if data == [5] else [["Several"]]
    if isinstance(data, list) and len(data) > 1:
        wrong = [["list[Several]", *at] for at in ([1], [2], [3, "n"])]
    assert 422 == answer.status_code
    assert [["body", "data", *at] for at in wrong] == [entry["loc"] for entry in answer.json()["detail"]]


def test_a_field_comes_by_any_of_its_names(place: Asking) -> None:
    for name in ("x", "y", "value"):
        answer = place.http.post("aliased-in/echo", json={"data": [{"id": "a", name: "YQ=="}]})
        assert (200, {"id": "a", "value": "YQ=="}) == (answer.status_code, answer.json()["data"][0])
