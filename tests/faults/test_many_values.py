"""What a request holds is bounded in values, however few bytes they take, and reading many lets others run."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from docarray import BaseDoc
from docarray.typing import NdArray
from google.protobuf.json_format import ParseDict
from pydantic import BaseModel

from jina_asgi.documents.codec import codec
from jina_asgi.documents.schemas import schema_of
from jina_asgi.errors import InvalidDocs, TooLarge
from jina_asgi.protocols.http.bodies import JSON, MSGPACK, PROTOBUF
from jina_asgi.protocols.protobuf.messages import DataRequest
from jina_asgi.protocols.size_guard import NUMBERS, check_json, check_msgpack
from jina_asgi.settings import Limits
from tests.doubles.round_trips import bodies

VALUES, PARAMETERS = Limits().values, Limits().parameters


class Kid(BaseModel):
    n: int = 0


class Lists(BaseDoc):
    texts: list[str] = []
    numbers: list[float] = []
    kids: list[Kid] = []
    pairs: dict[str, int] = {}
    either: list[int | list[int] | dict[str, Kid] | bool] = []
    triple: tuple[int, str, float] | None = None
    names: set[str] = set()


class Vector(BaseDoc):
    vector: NdArray


ENCODERS: dict[str, Callable[[Any], bytes]] = {JSON: orjson.dumps, MSGPACK: msgspec.msgpack.encode}
TOO_MANY: dict[str, Any] = {
    "empty lists": {"data": {"kids": [[]] * VALUES}},
    "empty mappings": {"data": {"kids": [{}] * VALUES}},
    "lists in what is unknown": {"data": {"unknown": [[[]]] * VALUES}},
    "lists beside the data": {"data": [], "unknown": [[]] * VALUES},
    "texts": {"data": {"texts": [""] * VALUES}},
    "keys": {"data": {"pairs": {str(number): 0 for number in range(VALUES)}}},
    "numbers": {"data": {"numbers": [0] * (NUMBERS * VALUES + 2)}},
    "empty lists in the parameters": {"data": [], "parameters": {"x": [[]] * PARAMETERS}},
    "numbers in the parameters": {"data": [], "parameters": {"x": [0] * PARAMETERS}},
    "keys of the parameters": {"data": [], "parameters": {str(number): 0 for number in range(PARAMETERS + 1)}},
    "a long text in the parameters": {"data": [], "parameters": {"x": ["a" * 2**22, "b"]}},
    "a long key of the parameters": {"data": [], "parameters": {"a" * 2**22: "b"}},
}


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("media", ENCODERS)
@pytest.mark.parametrize("name", TOO_MANY)
def test_more_values_than_a_request_may_hold_are_refused(name: str, media: str, heavy: bool) -> None:
    with pytest.raises(TooLarge, match="expected at most"):
        bodies(schema_of(Lists)).read(media, ENCODERS[media](TOO_MANY[name]), heavy=heavy)


@pytest.mark.parametrize("name", [name for name in TOO_MANY if "parameters" in name and "long" not in name])
def test_more_parameters_than_a_request_may_hold_are_refused_in_protobuf(name: str) -> None:
    message = DataRequest()
    ParseDict(TOO_MANY[name]["parameters"], message.parameters)
    with pytest.raises(TooLarge, match=f"at most {PARAMETERS} values in the parameters"):
        bodies(schema_of(Lists)).read(PROTOBUF, message.SerializeToString())


def test_a_limit_of_ones_own_counts() -> None:
    few = bodies(schema_of(Lists), Limits(values=20, parameters=3))
    assert ["a"] * 9 == few.read(JSON, b'{"data":{"texts":%s}}' % orjson.dumps(["a"] * 9)).docs.typed[0].texts
    for media, encode in ENCODERS.items():
        with pytest.raises(TooLarge):
            few.read(media, encode({"data": {"texts": ["a"] * 20}}))
        with pytest.raises(TooLarge):
            few.read(media, encode({"data": {}, "parameters": {"x": [1, 2, 3]}}))


def test_a_body_full_of_floats_passes() -> None:
    count = 2**20
    floats = np.random.default_rng(7).random(count)
    raw = b'{"data":[%s]}' % b",".join([b'{"vector":%s}' % orjson.dumps(floats, option=orjson.OPT_SERIALIZE_NUMPY)] * 3)
    assert Limits().body * 0.8 < len(raw) < Limits().body
    docs = bodies(schema_of(Vector)).read(JSON, raw, heavy=True).docs.typed
    assert [count] * 3 == [len(doc.vector) for doc in docs]
    assert (floats == docs[2].vector).all()


def made(rng: random.Random, depth: int = 0) -> Any:
    """Any value that JSON has, with texts that look like other values."""
    if depth > 4 or rng.random() < 0.3:
        text = "".join(rng.choices('a,[{":}]\\\n\x01é', k=rng.randrange(9)))
        return rng.choice([text, rng.randrange(-(2**40), 2**40), rng.random(), True, None])
    items = [made(rng, depth + 1) for _ in range(rng.randrange(12))]
    return items if rng.random() < 0.5 else {f"{number}\\{rng.random()}": item for number, item in enumerate(items)}


def weight(value: Any) -> int:
    """How many texts, keys and lists a value is, and four for a mapping."""
    if isinstance(value, dict):
        return 4 + len(value) + sum(map(weight, value.values()))
    return 1 + sum(map(weight, value)) if isinstance(value, list) else isinstance(value, str)


@pytest.mark.parametrize("seed", range(20))
def test_values_are_counted_as_they_are(seed: int) -> None:
    rng = random.Random(seed)
    value = [made(rng) for _ in range(3 if seed else 300)]  # one over several blocks
    count = weight(value)
    for encode, check in ((orjson.dumps, check_json), (msgspec.msgpack.encode, check_msgpack)):
        check(encode(value), count)
        with pytest.raises(TooLarge):
            check(encode(value), count - 1)


@pytest.mark.parametrize("numbers", [[0.5], [1, 200, 70_000, -1], [1], [np.float32(0.5).item()], [0, 0.5]], ids=str)
def test_numbers_may_be_many_more_than_texts(numbers: list[float]) -> None:
    for encode, check in ((orjson.dumps, check_json), (msgspec.msgpack.encode, check_msgpack)):
        check(encode([numbers * 200] * 2), 100)
        with pytest.raises(TooLarge):
            check(encode([numbers * 4000] * 2), 3)


SHAPES: list[Any] = [
    {"texts": ["a"] * 9, "numbers": [1, 2.5], "pairs": {"a": 1}, "triple": [1, "a", 2], "names": ["a", "b"]},
    {"kids": [{"n": 1}, {}], "either": [1, [2], {"a": {"n": 3}}, True]},
    {"texts": ["a", 1, 2, "b", 3]},
    {"either": ["x", [1, "a", "b"], {"a": {"n": "b"}}, 1.5]},
    {"kids": [{"n": "a"}, {"n": "b"}], "pairs": {"a": "b"}, "triple": ["a", 1, "b"]},
    {"names": [1, 2]},
]


@pytest.mark.parametrize("shape", SHAPES, ids=range(len(SHAPES)))
def test_what_is_read_patiently_is_the_same_and_its_first_error_too(shape: Any) -> None:
    of = codec(schema_of(Lists))
    item = {"id": "1", **shape}

    def outcome(*, yielding: bool) -> tuple[Any, list[dict[str, Any]]]:
        try:
            return of.read([item], yielding=yielding)[0], []
        except InvalidDocs as error:
            return None, error.errors

    (doc, errors), (yielded, fewer) = outcome(yielding=False), outcome(yielding=True)
    assert doc == yielded
    assert ["too_many_errors"] * bool(fewer) == [entry["type"] for entry in fewer[-1:]]
    assert [entry for entry in errors if entry in fewer] == fewer[:-1]
    assert errors[:1] == fewer[:-1][:1]


def test_of_a_list_of_wrong_items_the_first_is_reported() -> None:
    raw = orjson.dumps({"data": {"texts": [0] * 10**6, "either": ["x"] * 10**5}})
    with pytest.raises(InvalidDocs) as found:
        bodies(schema_of(Lists)).read(JSON, raw, heavy=True)
    *entries, said = found.value.errors
    assert {("texts", 0), ("either", 0)} == {tuple(entry["loc"][3:5]) for entry in entries}
    assert "only the first error" in found.value.message
    assert "not listed: in each list or mapping all errors but the first, as the request is large" == said["msg"]
