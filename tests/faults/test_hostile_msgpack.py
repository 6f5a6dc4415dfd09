"""Whatever msgpack a client sends is read or ends in one of our errors, cut off or changed at any byte."""

from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from jina_asgi.documents.codec import codec
from jina_asgi.documents.document_types import LegacyDocument
from jina_asgi.documents.msgpack import pack, unpack
from jina_asgi.documents.schemas import schema_of
from jina_asgi.errors import InvalidDocs, InvalidRequest
from jina_asgi.protocols.http.bodies import JSON, MSGPACK
from tests.doubles.round_trips import bodies

Ext = msgspec.msgpack.Ext
from tests.doubles.hostile_documents import BODIES, MODELS, Fast, Slow, ends, every_model, refusal

GOOD: dict[str, Any] = {
    "data": [{"text": "a", "n": 1, "f": 1.5, "v": np.ones(3, np.float32), "l": [1], "any": {"a": [None]}}]
}
GOOD |= {"parameters": {"x": 1}, "header": {"request_id": "abc"}}
COLUMNS = {"data": {"columns": {"text": ["a", "b"], "n": [1, 2], "v": np.ones((2, 3), np.float32)}}}


@every_model
@pytest.mark.parametrize("body", [GOOD, COLUMNS], ids=["rows", "columns"])
def test_msgpack_cut_off_at_any_byte_is_refused(model: type[BaseModel], body: Any) -> None:
    raw = pack(body)
    for length in range(len(raw)):
        refusal(model, raw[:length], MSGPACK)
    refusal(model, raw + b"\0", MSGPACK)
    assert BODIES[model].read(MSGPACK, raw).docs.typed[0].n == 1


@every_model
def test_a_document_cut_off_at_any_byte_is_refused(model: type[BaseModel]) -> None:
    of = codec(schema_of(model))
    (raw,) = of.encode([model(text="a", n=1)])
    for length in range(len(raw)):
        with pytest.raises(InvalidRequest):
            of.decode([raw] * 5 + [raw[:length]])


@every_model
@settings(deadline=None, max_examples=200)
@given(raw=st.binary(max_size=300))
def test_any_bytes_end_in_one_of_our_errors_or_are_read(model: type[BaseModel], raw: bytes) -> None:
    for media in (JSON, MSGPACK):
        ends(model, raw, media)
    try:
        codec(schema_of(model)).decode([raw])
    except InvalidRequest:
        pass


@every_model
@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_msgpack_with_bytes_changed_ends_in_one_of_our_errors_or_is_read(
    model: type[BaseModel], data: st.DataObject
) -> None:
    raw = bytearray(pack(data.draw(st.sampled_from([GOOD, COLUMNS]))))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    ends(model, bytes(raw), MSGPACK)


WIRE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.builds(Ext, st.sampled_from([0, 5, 10, 11, 32, 33, -1]), st.binary(max_size=20)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "columns", "n", "v", "any", "text", "shape", "dtype"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("model", [*MODELS, LegacyDocument])
@settings(deadline=None, max_examples=200)
@given(fields=st.dictionaries(st.sampled_from(["id", "text", "n", "f", "v", "l", "any", "kids", "tensor"]), WIRE))
def test_fields_of_any_type_end_in_one_of_our_errors_or_are_read(
    model: type[BaseModel], fields: dict[str, Any]
) -> None:
    ends(model, msgspec.msgpack.encode({"data": [fields]}), MSGPACK)
    ends(model, msgspec.msgpack.encode({"data": [fields] * 5}), MSGPACK)
    ends(model, msgspec.msgpack.encode({"data": {"columns": fields}}), MSGPACK)
    try:
        ends(model, orjson.dumps({"data": [fields]}))
    except TypeError:
        pass  # no JSON in the first place


@pytest.mark.parametrize("code", [12, 31, 33, 127, -1, -128])
def test_an_extension_type_that_is_no_tensor_is_refused(code: int) -> None:
    raw = msgspec.msgpack.encode({"data": [{"v": Ext(code, b"\0" * 16)}]})
    assert type(refusal(Fast, raw, MSGPACK)) is InvalidDocs


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 10**5])
def test_msgpack_that_lies_about_its_lengths_is_refused(raw: bytes) -> None:
    refusal(Fast, raw, MSGPACK)
    with pytest.raises(InvalidDocs):
        unpack(raw)


BAD_COLUMNS: list[Any] = [
    {"n": [1, 2], "text": ["a"]},
    {"n": 1},
    {"n": "abc"},
    {"n": {"a": 1}},
    {"n": [1, 2], "v": np.ones((3, 2), np.float32)},
    {"n": [1, 2], "v": np.float32(1)},
    {"n": [1, "x"]},
    {"text": [None]},
    {"v": [[1, 2], ["a", "b"]]},
]


@pytest.mark.parametrize("model", [Fast, Slow])
@pytest.mark.parametrize("columns", BAD_COLUMNS)
def test_columns_that_are_wrong_are_422(model: type[BaseModel], columns: Any) -> None:
    assert type(refusal(model, pack({"data": {"columns": columns}}), MSGPACK)) is InvalidDocs


def test_a_field_named_columns_is_a_field() -> None:
    class Table(BaseModel):
        columns: dict[str, list[int]]

    of_table = bodies(schema_of(Table))
    for media, dump in ((JSON, orjson.dumps), (MSGPACK, pack)):
        (read,) = of_table.read(media, dump({"data": {"columns": {"a": [1, 2]}}})).docs.typed
        assert read == Table(columns={"a": [1, 2]})
