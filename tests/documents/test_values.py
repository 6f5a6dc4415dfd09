"""What goes in is what comes out: every kind of field, over every protocol, wherever the Executor is, both ways."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import numpy as np
import pytest
from docarray import DocList
from pydantic import BaseModel, SecretStr

from jina_asgi import Client
from jina_asgi.excepts import BadServer
from tests.doubles.value_kinds import (
    MODELS,
    ODD,
    Arrays,
    Chain,
    Colour,
    Computed,
    Inner,
    Open,
    Serialized,
    SerializedWhole,
    Several,
    Small,
    Stamped,
    Told,
    Tree,
    Validated,
    said,
)
from tests.doubles.value_places import Place, served

pytestmark = pytest.mark.processes

INNER = Inner(id="i", n=3, v=np.array([1.0, np.nan]), b=b"\xff")
NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, 5, tzinfo=datetime.UTC)
THERE = NOON.astimezone(datetime.timezone(datetime.timedelta(hours=5, minutes=30)))
BEHIND = NOON.astimezone(datetime.timezone(datetime.timedelta(hours=-3)))
VALUES: dict[str, list[Any]] = {
    "str": ["", "é\u2028\0 😀", "NaN", "event: end"],
    "int": [0, -1, 2**31 - 1],
    "float": [1.5, -0.0, math.nan, math.inf, -math.inf],
    "bool": [True, False],
    "bytes": [b"", b"\xff\x00"],
    "optional": [None, 1],
    "list": [[], [1, 2]],
    "list-of-float": [[math.nan, math.inf, 1.0]],
    "list-of-bytes": [[b"\xff", b""]],
    "tuple": [(1, b"\xff")],
    "set": [{1, 2}],
    "dict": [{"a": math.inf}, {}],
    "dict-by-int": [{1: b"\xff"}],
    "any": [1, "a", None, [1, {"a": -math.inf}], b"\xff"],
    "union": [1, "1"],
    "literal": ["a", 1],
    "enum": [Colour.RED, Colour.BLUE],
    "datetime": [NOON, THERE, BEHIND, NOON.replace(tzinfo=None)],
    "aware-datetime": [NOON, THERE],
    "datetimes": [[NOON, None, THERE, BEHIND]],
    "dict-of-datetimes": [{"a": (1, THERE)}, {"a": (1, NOON)}],
    "document-with-datetime": [Stamped(at=THERE), Stamped(at=NOON)],
    "timedelta": [datetime.timedelta(days=-1, seconds=1.5), datetime.timedelta.max],
    "decimal": [decimal.Decimal("1.10")],
    "uuid": [uuid.UUID(int=5)],
    "tensor": [np.array([[1.0, np.nan], [-np.inf, 2.0]]), np.zeros(0, np.int8), np.array(3.5)],
    "float32": [np.array([1.5, np.inf], np.float32)],
    "uint8": [np.array([0, 255], np.uint8)],
    "shaped": [np.ones((2, 2))],
    "document": [INNER],
    "documents": [DocList[Inner]([INNER]), DocList[Inner]()],
    "list-of-small": [[Small(n=1, at=datetime.timedelta(seconds=1))]],
    "constrained": [1, 99],
    "serialized-by-type": [3],
    "excluded": [7],
    "aliased": [3],
    "aliased-out": [3],
    "aliased-in": [b"\xff"],
    "none-for-str": [None, "x"],
    "none-for-tensor": [None, np.ones(2)],
    "text-for-int": ["many", 3],
    "infinite": [math.inf],
}
DTYPES = [np.dtype(name) for name in "? i1 u1 i2 u2 i4 u4 i8 u8 f2 f4 f8".split()]
DOCS: dict[str, list[BaseModel]] = {
    "tree": [
        Tree(id="a", n=1, leaf=np.ones(2), twigs=DocList[Tree]([Tree(id="b", twigs=DocList[Tree]([Tree(id="c")]))]))
    ],
    "chain": [Chain(n=1, next=Chain(n=2, next=Chain()))],
    "serialized": [Serialized(id="a", value=3)],
    "serialized-whole": [SerializedWhole(value=3)],
    "computed": [Computed(value=3)],
    "validated": [Validated(id="a", value=3)],
    "open": [Open(value=1, more="x", nested={"a": [1]})],
    "several": [Several(id="a", n=1, blob=b"\xff", v=np.ones((1, 2), np.float16), name="b")],
    "dtypes": [],
}
SECRET = SecretStr("hush")


def of(kind: str) -> list[BaseModel]:
    """The documents of a kind."""
    if kind == "dtypes":
        return [documents("tensor", np.array([0, 1, 1], dtype)) for dtype in DTYPES]
    return DOCS[kind] if kind in DOCS else [documents(kind, value) for value in VALUES[kind]]


def documents(kind: str, value: Any) -> BaseModel:
    """A document with this value, whatever its class says of its own defaults."""
    model = MODELS[kind]
    held: dict[str, Any] = {"id": "a"} if "id" in model.model_fields else {}
    made = model.model_construct(value=value, **held)
    vars(made)["value"] = value
    return made


def wire(kind: str) -> str:
    """The name of the endpoints of a kind."""
    return "tensor" if kind == "dtypes" else kind


@pytest.fixture(scope="module")
def places() -> Iterator[dict[str, Place]]:
    with served() as found:
        yield found


@pytest.fixture(scope="module")
def clients(places: dict[str, Place]) -> Iterator[dict[tuple[str, str], Any]]:
    """By place and protocol."""
    with ExitStack() as stack:
        yield {
            (name, protocol): stack.enter_context(Client(host))  # type: ignore[arg-type]
            for name, place in places.items()
            for protocol, host in {
                "http": place.url,
                "websocket": f"ws{place.url.removeprefix('http')}",
                "grpc": f"grpc://127.0.0.1:{place.grpc}",
            }.items()
        }


#: Every protocol to where the class is and to where it is not; of those that are alike, one each.
PAIRS = [(place, protocol) for place in ("worker", "pool") for protocol in ("http", "websocket", "grpc")]
PAIRS += [("frames", "websocket"), ("external", "http")]


@pytest.fixture(params=PAIRS, ids="-".join)
def client(request: pytest.FixtureRequest, clients: dict[tuple[str, str], Any]) -> Any:
    return clients[request.param]


@pytest.mark.parametrize("kind", [*VALUES, *DOCS])
def test_documents_arrive_and_come_back_as_they_are(kind: str, client: Any) -> None:
    docs, name = of(kind), wire(kind)
    told = client.post(f"/{name}/told", docs, return_type=list[Told])
    assert [said(doc) for doc in docs] == [one.text for one in told]
    model: Any = MODELS[name]
    answered = client.post(f"/{name}/echo", docs, return_type=list[model])
    assert [said(doc) for doc in docs] == [said(doc) for doc in answered]
    streamed = [doc for one in docs for doc in client.stream_doc(f"/{name}/stream", one, return_type=model)]
    assert [said(doc) for doc in docs] == [said(doc) for doc in streamed]


@pytest.mark.parametrize("field", ["ours", "numpys"])
@pytest.mark.parametrize("name", ODD)
def test_what_is_no_array_of_numbers_is_refused_by_its_field_and_dtype(name: str, field: str, client: Any) -> None:
    expected = rf"{field}.*dtype {re.escape(str(ODD[name].dtype))}"
    with pytest.raises(BadServer, match=expected):
        client.post("/odd/take", Arrays.model_construct(**{field: ODD[name]}))  # type: ignore[arg-type]
    with pytest.raises(BadServer, match=expected):
        client.post("/odd/give", Told(text=f"{field} {name}"))
    with pytest.raises(BadServer, match=expected):
        list(client.stream_doc("/odd/stream", Told(text=f"{field} {name}")))


@pytest.mark.parametrize("field", ["ours", "numpys"])
@pytest.mark.parametrize("name", ODD)
def test_in_plain_json_it_is_refused_too(name: str, field: str, places: dict[str, Place]) -> None:
    for where, place in places.items():
        answer = httpx.post(f"{place.url}/odd/give", json={"data": [{"text": f"{field} {name}"}]}, timeout=60)
        assert 500 == answer.status_code, where
        assert re.search(rf"{field}.*dtype {re.escape(str(ODD[name].dtype))}", answer.json()["detail"]), where


MOMENTS = ["2024-02-29T12:00:00.000005+05:30", "2024-02-29T12:00:00Z", "2024-02-29T12:00:00"]
DURATIONS = ["PT0S", "P1DT12H", "-PT1H30M", "P400D"]
TEXTS = [
    *(("datetime", moment) for moment in MOMENTS),
    *(("timedelta", duration) for duration in DURATIONS),
    ("list-of-small", [{"n": 1, "at": "PT0S"}]),
]


@pytest.mark.parametrize(("kind", "value"), TEXTS)
def test_moments_and_durations_are_the_same_text_from_every_place(
    kind: str, value: Any, places: dict[str, Place]
) -> None:
    def answers(place: Place) -> list[Any]:
        call = httpx.post(f"{place.url}/{kind}/echo", json={"data": [{"value": value}]}, timeout=60)
        stream = httpx.post(f"{place.url}/{kind}/stream", json={"data": {"value": value}}, timeout=60)
        [event] = re.findall(r"event: update\r\ndata: (.*)\r", stream.text)
        return [call.json()["data"][0]["value"], json.loads(event)["value"]]

    assert dict.fromkeys(places, answers(places["worker"])) == {
        where: answers(place) for where, place in places.items()
    }


def test_a_secret_arrives_and_is_in_no_answer(client: Any) -> None:
    doc = documents("secret", SECRET)
    [told] = client.post("/secret/told", doc, return_type=list[Told])
    assert said(doc) == told.text
    model = MODELS["secret"]
    answered = client.post("/secret/echo", doc, return_type=model)
    [streamed] = client.stream_doc("/secret/stream", doc, return_type=model)
    assert ["*" * 10] * 2 == [one.value.get_secret_value() for one in (answered, streamed)]
