"""Documents as docarray's protobuf: ours and docarray's read and write the same, and nothing hostile costs much."""

from __future__ import annotations

import functools
import random
import resource
import tracemalloc
from functools import partial
from typing import Annotated, Any

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.documents import ImageDoc, TextDoc
from docarray.proto import DocListProto
from docarray.typing import AnyUrl, ImageBytes, NdArray
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, create_model

from jina_asgi.documents.codec import codec
from jina_asgi.documents.document_types import LegacyDocument
from jina_asgi.documents.schemas import schema_of
from jina_asgi.errors import InvalidDocs, InvalidRequest, TooLarge
from jina_asgi.protocols.protobuf import messages
from jina_asgi.protocols.protobuf.documents import DocsWire, wire
from jina_asgi.protocols.protobuf.fast_parser import Scanner
from jina_asgi.protocols.protobuf.node_reader import NodeReader
from jina_asgi.protocols.protobuf.node_writer import _MANY as MANY
from jina_asgi.protocols.protobuf.size_guard import check_docs
from jina_asgi.settings import Limits
from tests.documents.test_codec import FIELDS
from tests.doubles.round_trips import MSGPACK_PATHS, PROTOBUF_PATHS, assert_round_trips, assert_same

LIMITS = Limits()
pytestmark = pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated")  # docarray's own


class Inner(BaseDoc):
    text: str = ""
    vector: NdArray | None = None


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


class Every(BaseDoc):
    """A field of each kind that docarray's protobuf has."""

    text: str
    number: int
    real: float
    truth: bool
    blob: bytes
    url: AnyUrl | None
    image: ImageBytes | None
    vector: Annotated[NdArray, np.float32]
    tensor: NdArray | None
    inner: Inner | None
    many: DocList[Inner]
    numbers: list[int]
    unique: set[str]
    pair: tuple[int, str]
    tags: dict[str, Any]


NUMBERS = st.integers(-(2**31), 2**31 - 1)
REALS = st.floats(allow_nan=False)
ARRAYS = st.builds(
    lambda dtype, shape: (np.arange(int(np.prod(shape))) % 2).astype(dtype).reshape(shape),
    st.sampled_from("? i1 u1 <i2 <u4 <i8 <u8 <f2 <f4 <f8".split()),
    st.lists(st.integers(1, 3), max_size=3),
)
ANYTHING = st.recursive(
    st.none() | st.text() | st.booleans() | NUMBERS | REALS | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
INNER = st.builds(Inner, text=st.text(), vector=st.none() | ARRAYS)
EVERY = st.builds(
    Every,
    text=st.text() | st.text(min_size=120, max_size=140),
    number=NUMBERS,
    real=REALS,
    truth=st.booleans(),
    blob=st.binary(max_size=300),
    url=st.none() | st.just(AnyUrl("http://a.b/c")),
    image=st.none() | st.binary(max_size=5).map(ImageBytes),
    vector=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=9).map(
        lambda x: np.array(x, np.float32)
    ),
    tensor=st.none() | ARRAYS,
    inner=st.none() | INNER,
    many=st.lists(INNER, max_size=3).map(DocList[Inner]),
    numbers=st.lists(NUMBERS, max_size=4),
    unique=st.sets(st.text(), max_size=3),
    pair=st.tuples(NUMBERS, st.text()),
    tags=st.dictionaries(st.text(), ANYTHING, max_size=3),
)


def with_field(annotation: Any, base: type[BaseModel] = BaseDoc) -> Any:
    return create_model("Some", __base__=base, value=(annotation, ...))


@functools.cache
def of(model: type[BaseModel]) -> DocsWire:
    return wire(codec(schema_of(model)))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(docs=st.lists(EVERY, min_size=1, max_size=4))
def test_ours_reads_and_writes_what_docarray_does(docs: list[Every]) -> None:
    theirs = DocList[Every](docs).to_protobuf()
    ours = of(Every).write(docs)
    assert DocListProto.FromString(ours) == theirs
    read = of(Every).read(theirs.SerializeToString(), LIMITS)
    expected = DocList[Every].from_protobuf(theirs)
    for doc in (*expected, *read):
        doc.tags = ordered(doc.tags)
    assert_same(expected, read)


@pytest.mark.parametrize("base", [BaseDoc, BaseModel], ids=["doc", "model"])
@pytest.mark.parametrize("name", sorted(set(FIELDS) - {"int", "ordered", "dict of anything"}))
def test_a_field_arrives_as_it_was_sent(name: str, base: type[BaseModel]) -> None:
    annotation, values = FIELDS[name]
    Some = with_field(annotation, base)
    assert_round_trips(Some, *[Some(value=value) for value in values], paths=PROTOBUF_PATHS)


def test_a_mapping_arrives_with_its_entries_in_any_order_as_protobuf_has_none() -> None:
    value = {"a": [1, {"b": None, "d": 2}], "c": 1.5}
    Some = with_field(dict[str, Any])
    for path in PROTOBUF_PATHS.values():
        assert [value] * 5 == [doc.value for doc in path(schema_of(Some), [Some(value=value)] * 5)]


def test_documents_of_docarray_and_of_jina_arrive() -> None:
    chunk = LegacyDocument(text="chunk")
    legacy = LegacyDocument(text="a", tensor=np.eye(2), tags={"a": [1.5, True]}, chunks=[chunk])
    assert_round_trips(LegacyDocument, legacy, paths=PROTOBUF_PATHS)
    image = ImageDoc(url="http://a/b.png", tensor=np.zeros((2, 2, 3), np.uint8), bytes_=b"\x89PNG")
    assert_round_trips(ImageDoc, image, paths=PROTOBUF_PATHS)
    for doc in (legacy, image, TextDoc(text="x", embedding=np.ones(3))):
        assert DocListProto.FromString(of(type(doc)).write([doc])) == DocList[type(doc)]([doc]).to_protobuf()  # type: ignore[operator]  # an alias of docarray's is called


@pytest.mark.parametrize("dtype", ">f4 >f8 >i2 >u8 >f2".split())
def test_a_big_endian_tensor_has_the_numbers_that_were_meant(dtype: str) -> None:
    Some = with_field(NdArray)
    sent: Any = DocList.__class_getitem__(Some)([Some(value=np.arange(6).astype(dtype).reshape(2, 3))] * 5)
    for read in (
        of(Some).read(sent.to_protobuf().SerializeToString(), LIMITS),
        of(Some).read(of(Some).write(sent), LIMITS),
    ):
        assert [[[0, 1, 2], [3, 4, 5]]] * 5 == [doc.value.tolist() for doc in read]
        assert {np.dtype(dtype).newbyteorder("=")} == {doc.value.dtype for doc in read}


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1, 1, 1)])
def test_a_tensor_of_no_axes_or_no_elements_keeps_its_shape_and_dtype(shape: tuple[int, ...]) -> None:
    Some = with_field(NdArray)
    for dtype in (np.int16, np.bool_):
        assert_round_trips(Some, Some(value=np.zeros(shape, dtype)), paths={**PROTOBUF_PATHS, **MSGPACK_PATHS})


def test_a_tensor_that_was_read_may_be_written_to_and_is_not_shared() -> None:
    Some = with_field(NdArray)
    raw = of(Some).write([Some(value=np.zeros(size)) for size in (3, 3, 20_000, 20_000)])
    first, second = of(Some).read(raw, LIMITS), of(Some).read(raw, LIMITS)
    for doc in first:
        doc.value += 1
    assert not any(doc.value.any() for doc in second)


def test_a_torch_tensor_arrives_as_one() -> None:
    torch = pytest.importorskip("torch")
    from docarray.typing.tensor.torch_tensor import TorchTensor

    Some = with_field(TorchTensor)
    sent: Any = DocList.__class_getitem__(Some)([Some(value=torch.arange(6.0).reshape(2, 3))] * 5)
    assert DocListProto.FromString(of(Some).write(sent)) == sent.to_protobuf()
    assert_round_trips(Some, *sent, paths=PROTOBUF_PATHS)


def test_fields_that_a_class_does_not_know_are_dropped_whatever_they_hold() -> None:
    class Little(BaseModel):
        model_config = ConfigDict(extra="forbid")
        text: str

    class Outer(BaseModel):
        model_config = ConfigDict(extra="forbid")
        inner: Little

    class Much(BaseDoc):
        text: str
        tensor: NdArray
        more: dict[str, Any]

    class Nested(BaseDoc):
        inner: Much

    much = Much(text="a", tensor=np.array(["no number"]), more={"a": [1]})
    raw = DocList[Much]([much] * 5).to_protobuf().SerializeToString()
    assert [Little(text="a")] * 5 == of(Little).read(raw, LIMITS)
    nested = DocList[Nested]([Nested(inner=much)]).to_protobuf().SerializeToString()
    assert [Outer(inner=Little(text="a"))] == of(Outer).read(nested, LIMITS)
    assert "a" == of(Anything).read(of(Much).write([Much(text="a", tensor=np.eye(2), more={})]), LIMITS)[0].text


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**70])
def test_an_integer_over_32_bits_is_refused_as_docarray_refuses_it(number: int) -> None:
    Some = with_field(int)
    with pytest.raises(InvalidDocs, match=f"integers of 32 bits, got {number}"):
        of(Some).write([Some(value=number)])


def node(**content: Any) -> bytes:
    """A DocListProto of one document whose field `value` holds this."""
    message = messages.DocListProto()
    message.docs.add().data["value"].MergeFrom(messages.NodeProto(**content))
    return bytes(message.SerializeToString())


def tensor(dtype: str, shape: list[int], buffer: bytes) -> bytes:
    dense = messages.DenseNdArrayProto(dtype=dtype, shape=shape, buffer=buffer)
    return node(ndarray=messages.NdArrayProto(dense=dense))


LIES = {
    "a shape of a terabyte": ("<f4", [10**6, 10**6], b""),
    "a shape over 64 bits": ("<f4", [2**32 - 1] * 3, b"abcd"),
    "too few bytes": ("<f4", [3], b"abcd"),
    "too many bytes": ("<f4", [1], b"abcdefgh"),
    "no shape": ("<f4", [], b"abcdefgh"),
    "nothing": ("", [], b""),
    "100 000 axes": ("<f4", [1] * 100_000, b"abcd"),
    "half a number": ("<f8", [1], b"abcd"),
    **{
        dtype: (dtype, [1], b"abcdefgh")
        for dtype in ("O", "|V8", "<U2", "|S8", "i4,O", "<M8[s]", "<m8", "<c8", "x" * 10**6)
    },
}


@pytest.mark.parametrize("lie", LIES)
def test_a_tensor_that_lies_is_refused_before_anything_is_made_of_it(lie: str) -> None:
    raw = tensor(*LIES[lie])
    tracemalloc.start()
    with pytest.raises(InvalidDocs):
        of(with_field(NdArray)).read(raw, LIMITS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 2**20


def nested(depth: int) -> bytes:
    raw = b""
    for _ in range(depth):  # a document that holds one
        held = b"\x3a" + length(len(raw)) + raw
        entry = b"\x0a\x01x\x12" + length(len(held)) + held
        raw = b"\x0a" + length(len(entry)) + entry
    return b"\x0a" + length(len(raw)) + raw


def length(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])


HOSTILE = {
    "10 000 documents in each other": nested(10_000),
    "40 documents in each other": nested(40),
    "a group": b"\x0b" * 1000,
    "a wrong wire type": b"\x08\x01" * 3 + b"\x0f",
    "a length over the end": b"\x0a\xff\xff\xff\x0f" + b"x" * 100,
    "a length of 11 bytes": b"\x0a" + b"\xff" * 11,
    "no text": node(text="ab").replace(b"ab", b"\xff\xfe"),
    "a name that is no text": node(text="a").replace(b"value", b"\xff\xfeaaa"),
    "JSON": b'{"data": []}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_list_of_documents_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        of(Anything).read(HOSTILE[name], LIMITS)


@pytest.mark.parametrize("before", [b"", b"\x12\x00"], ids=["documents alone", "behind what is unknown"])
def test_too_many_documents_are_refused_without_reading_them(before: bytes) -> None:
    raw = before + b"\x0a\x00" * 5_000_000
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TooLarge):
        of(Anything).read(raw, LIMITS)
    with pytest.raises(TooLarge, match="at most 10000 docs"):
        of(Anything).read(raw[:100_000], LIMITS)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 50 * 1024  # KiB


def test_nothing_of_a_truncated_message_is_taken() -> None:
    raw = of(Every).write([EVERYTHING] * 2)
    cuts = {len(of(Every).write([EVERYTHING]))}
    for end in range(1, len(raw)):
        if end not in cuts:
            with pytest.raises(InvalidRequest):
                of(Every).read(raw[:end], LIMITS)


def test_of_two_values_under_one_name_the_last_counts_as_in_protobuf() -> None:
    Some = with_field(str)
    one, two = node(text="one")[2:], node(text="two")[2:]
    raw = b"\x0a" + length(len(one + two)) + one + two
    assert "two" == of(Some).read(raw, LIMITS)[0].value == with_protobuf(Some, raw)[0]["value"]


EVERYTHING = Every(
    text="é" * 100, number=-5, real=1.5, truth=True, blob=b"\xff" * 200, url="http://a/b", image=b"i",
    vector=np.ones(4, np.float32), tensor=np.eye(3), inner=Inner(text="in", vector=np.ones(2)),
    many=DocList[Inner]([Inner(), Inner(text="x")]), numbers=[1, -1], unique={"a"}, pair=(1, "b"),
    tags={"a": [1, {"b": None}], "c": 2.5},
)  # fmt: skip


def with_protobuf(model: type[BaseModel], raw: bytes) -> list[dict[str, Any]]:
    """What protobuf's own parser makes of the bytes."""
    schema = schema_of(model)
    return [NodeReader(schema).document(doc, schema.name) for doc in messages.DocListProto.FromString(raw).docs]


def outcome(read: Any) -> Any:
    """What is read, or that it is refused; any other error is a defect."""
    try:
        return read()
    except (InvalidRequest, DecodeError, ValueError):
        return None


def ordered(value: Any) -> Any:
    """The same with all mappings in one order: protobuf gives them in any."""
    if isinstance(value, dict):
        return {key: ordered(value[key]) for key in sorted(value)}
    return [ordered(item) for item in value] if isinstance(value, list | tuple) else value


def mutated(raw: bytes, rng: random.Random) -> bytes:
    made = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(made) + 1)
        how = rng.randrange(5)
        if how == 0 and at < len(made):
            made[at] = rng.randrange(256)
        elif how == 1:
            del made[at : at + rng.randrange(1, 4)]
        elif how == 2:
            made[at:at] = rng.randbytes(rng.randrange(1, 4))
        elif how == 3:
            other = rng.randrange(len(made) + 1)
            made[at:at] = made[other : other + rng.randrange(1, 40)]
        elif at < len(made):
            made[at] ^= 1 << rng.randrange(8)
    return bytes(made)


@pytest.mark.parametrize("model", [Every, Anything], ids=["typed", "untyped"])
def test_mutated_documents_are_read_as_protobuf_reads_them_or_refused_as_it_refuses_them(
    model: type[BaseModel],
) -> None:
    rng = random.Random(7)
    scanner = Scanner(schema_of(model))
    small = Every(**{**dict(EVERYTHING), "text": "", "blob": b"", "number": 0, "tags": {}, "url": None})
    raw = of(Every).write([EVERYTHING, small, EVERYTHING])
    agreed = 0
    for _ in range(1500):
        changed = mutated(raw, rng)
        ours = outcome(partial(scanner.rows, changed, Limits(docs=10)))
        theirs = outcome(partial(with_protobuf, model, changed))
        same = repr(ordered(ours)) == repr(ordered(theirs))
        assert same or (theirs is None and model is Every), changed  # what is dropped is not looked at
        agreed += ours is not None
        outcome(lambda: of(model).read(changed, LIMITS))  # noqa: B023
    assert agreed > 100


def entry(name: bytes, value: bytes) -> bytes:
    held = b"\x0a" + length(len(name)) + name + b"\x12" + length(len(value)) + value
    return b"\x0a" + length(len(held)) + held


def one_document(value: bytes) -> bytes:
    held = entry(b"x", value)
    return b"\x0a" + length(len(held)) + held


def values(count: int) -> dict[str, bytes]:
    """Messages of so many values, each of two or three bytes."""
    return {
        "empty values in a list": one_document(b"\x4a" + length(2 * count) + b"\x0a\x00" * count),
        "the same by a longer tag": one_document(b"\x4a" + length(3 * count) + b"\x8a\x00\x00" * count),
        "entries without a name": one_document(b"\x62" + length(2 * count) + b"\x0a\x00" * count),
        "documents in a list": one_document(b"\x42" + length(2 * count) + b"\x0a\x00" * count),
        "entries of a document": b"\x0a" + length(2 * count) + b"\x0a\x00" * count,
        "documents": b"\x0a\x00" * count,
        "behind what is unknown": b"\x78\x01\x7d1234" + one_document(b"\x4a" + length(2 * count) + b"\x0a\x00" * count),
    }


@pytest.mark.parametrize("name", values(1))
def test_values_are_counted_without_a_message_made_of_any(name: str) -> None:
    check_docs(values(990)[name], Limits(values=125))
    with pytest.raises(TooLarge, match="at most 1000 values in the docs of one request"):
        check_docs(values(1001)[name], Limits(values=125))


def test_millions_of_values_are_refused_before_memory_is_taken_for_them() -> None:
    raw = values(5_000_000)["empty values in a list"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TooLarge, match="values in the docs of one request"):
        of(Anything).read(raw, LIMITS)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024  # KiB


def test_a_large_tensor_of_nothing_but_line_feeds_is_no_list_of_values() -> None:
    Some = with_field(NdArray)
    sent = Some(value=np.full(6_000_000, 10, np.uint8))
    assert (of(Some).read(of(Some).write([sent]), LIMITS)[0].value == 10).all()


class Holder(BaseDoc):
    many: DocList[Inner]
    numbers: list[int]
    tags: dict[str, Any]


def test_many_values_are_written_as_few_are() -> None:
    numbers = list(range(3 * MANY + 1))
    inner = DocList[Inner]([Inner(text=str(number)) for number in numbers])
    doc = Holder(many=inner, numbers=numbers, tags={f"k{number}": number for number in numbers})
    (found,) = DocListProto.FromString(wire(codec(schema_of(Holder))).write([doc])).docs
    assert [str(number) for number in numbers] == [one.data["text"].text for one in found.data["many"].doc_array.docs]
    assert numbers == [node.integer for node in found.data["numbers"].list.data]
    assert numbers == [found.data["tags"].dict.data[f"k{number}"].integer for number in numbers]
    assert len(numbers) == len(found.data["tags"].dict.data)
