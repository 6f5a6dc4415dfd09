"""Documents of every kind of field arrive as they were sent, by JSON, by msgpack and through the plan alone."""

import datetime
import decimal
import enum
import pathlib
import uuid
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.documents import AudioDoc, ImageDoc, PointCloud3D, TextDoc, VideoDoc
from docarray.typing import ID, NdArray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AnyHttpUrl, BaseModel, Field, create_model

from jina_asgi.documents.codec import codec
from jina_asgi.documents.document_types import LegacyDocument
from jina_asgi.documents.schemas import schema_of
from jina_asgi.errors import ExecutorError, InvalidDocs
from tests.doubles.round_trips import JSON_PATHS, MSGPACK_PATHS, PATHS, assert_round_trips, by_json, json_of


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"


class Size(enum.IntEnum):
    SMALL = 1


class Pair(NamedTuple):
    a: int
    b: str


class Inner(BaseDoc):
    n: int = 0
    v: NdArray | None = None


class Blob(BaseModel):
    n: int = 0
    b: bytes = b""


INNER, BLOB = Inner(n=3, v=np.array([1.0, 2.0])), Blob(n=2, b=b"\xff")
NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, 5, tzinfo=datetime.UTC)

FIELDS: dict[str, tuple[Any, list[Any]]] = {
    "str": (str, ["", "é\u2028\0 😀", "NaN", "1" * 40, "[" * 100]),
    "int": (int, [0, -1, 2**63, 2**64 - 1, -(2**63)]),
    "float": (float, [1.5, -0.0, 1e308, 5e-324, 3.0]),
    "bool": (bool, [True, False]),
    "bytes": (bytes, [b"", b"\xff\x00", b"abcd"]),
    "id": (ID, ["abc"]),
    "optional": (str | None, ["a", None]),
    "optional bytes": (bytes | None, [b"\xff", None]),
    "list": (list[int], [[], [1, 2]]),
    "list of bytes": (list[bytes], [[], [b"\xff", b""]]),
    "list of optional": (list[int | None], [[1, None]]),
    "list of optional documents": (list[Inner | None], [[INNER, None]]),
    "list of lists of bytes": (list[list[bytes]], [[[b"\xff"], []]]),
    "bare list": (list, [[1, "a", None]]),
    "tuple": (tuple[int, str], [(1, "a")]),
    "tuple with bytes": (tuple[int, bytes], [(1, b"\xff")]),
    "tuple of any length": (tuple[bytes, ...], [(b"\xff", b"a"), ()]),
    "set": (set[int], [{1, 2}, set()]),
    "set of bytes": (set[bytes], [{b"\xff"}]),
    "frozen set of tuples": (frozenset[tuple[int, bytes]], [frozenset([(1, b"\xff")])]),
    "dict": (dict[str, int], [{"a": 1}, {}]),
    "dict of bytes": (dict[str, bytes], [{"a": b"\xff"}]),
    "dict of numbers": (dict[int, str], [{1: "a"}]),
    "dict of tensors": (dict[str, NdArray], [{"a": np.zeros(3)}]),
    "dict of anything": (dict[str, Any], [{"a": [1, {"b": None}], "c": 1.5}]),
    "deque": (deque[bytes], [deque([b"\xff"])]),
    "sequence of bytes": (Sequence[bytes], [[b"\xff"]]),
    "mapping to bytes": (Mapping[str, bytes], [{"a": b"\xff"}]),
    "ordered": (OrderedDict[str, int], [OrderedDict(b=1, a=2)]),
    "anything": (Any, [1, "a", None, [1, {"a": 1.5}]]),
    "document": (Inner, [INNER]),
    "optional document": (Inner | None, [INNER, None]),
    "list of documents": (list[Inner], [[INNER], []]),
    "DocList": (DocList[Inner], [DocList[Inner]([INNER]), DocList[Inner]([])]),
    "optional DocList": (DocList[Inner] | None, [DocList[Inner]([INNER]), None]),
    "dict of DocLists": (dict[str, DocList[Inner]], [{"a": DocList[Inner]([INNER])}]),
    "tuple with a document": (tuple[Inner, int], [(INNER, 1)]),
    "plain model": (Blob, [BLOB]),
    "union of scalars": (int | str | None, [1, "a", None]),
    "union with bool": (bool | int | str, [True, 1, "x"]),
    "union with float": (int | float, [1, 1.5]),
    "union with bytes": (int | bytes, [1, b"\xff"]),
    "union with a tensor": (NdArray | str, [np.zeros(3), "a"]),
    "union of documents": (Inner | Blob, [INNER, BLOB]),
    "literal": (Literal["a", 1], ["a", 1]),
    "enum": (Colour, [Colour.RED, Colour.BLUE]),
    "int enum": (Size, [Size.SMALL]),
    "datetime": (datetime.datetime, [NOON, NOON.replace(tzinfo=None)]),
    "date and time": (tuple[datetime.date, datetime.time], [(NOON.date(), NOON.time())]),
    "timedelta": (datetime.timedelta, [datetime.timedelta(days=1, seconds=1.5)]),
    "uuid": (uuid.UUID, [uuid.UUID(int=5)]),
    "dict by uuid": (dict[uuid.UUID, int], [{uuid.UUID(int=5): 1}]),
    "decimal": (decimal.Decimal, [decimal.Decimal("1.10")]),
    "path": (pathlib.PurePosixPath, [pathlib.PurePosixPath("/a/b")]),
    "url": (AnyHttpUrl, [AnyHttpUrl("http://a.b/c")]),
    "named tuple": (Pair, [Pair(1, "b")]),
    "constrained": (Annotated[int, Field(gt=0)], [1]),
}


@pytest.mark.parametrize("base", [BaseDoc, BaseModel], ids=["doc", "model"])
@pytest.mark.parametrize("name", FIELDS)
def test_a_field_arrives_as_it_was_sent(name: str, base: type[BaseModel]) -> None:
    annotation, values = FIELDS[name]
    Some = create_model("Some", __base__=base, value=(annotation, ...))
    assert_round_trips(Some, *[Some(value=value) for value in values])


@pytest.mark.parametrize("name", ["str", "bytes", "list of bytes", "document", "datetime", "enum", "dict"])
def test_a_default_stands_for_what_is_not_sent(name: str) -> None:
    annotation, values = FIELDS[name]
    Some = create_model("Some", __base__=BaseDoc, value=(annotation, values[0]))
    (received,) = codec(schema_of(Some)).read([{}])
    assert received.value == values[0]
    assert received.model_fields_set == set()


def test_a_default_is_each_documents_own() -> None:
    class Some(BaseDoc):
        words: list[str] = []
        by_factory: dict[str, int] = Field(default_factory=dict)
        of_others: str = Field(default_factory=lambda data: data["id"][:3])

    one, other = codec(schema_of(Some)).read([{"id": "abcdef"}, {"id": "uvwxyz"}])
    one.words.append("a")
    one.by_factory["a"] = 1
    assert (other.words, other.by_factory, other.of_others) == ([], {}, "uvw")


@pytest.mark.parametrize(
    "doc",
    [
        TextDoc(text="a", url="http://a.b/c.txt", embedding=np.zeros(3), bytes_=b"\xff"),
        ImageDoc(url="http://a.b/c.png", tensor=np.zeros((2, 2, 3)), embedding=np.ones(3), bytes_=b"\xff"),
        AudioDoc(url="http://a.b/c.mp3", tensor=np.zeros(4), frame_rate=8000),
        VideoDoc(tensor=np.zeros((2, 2, 2, 3)), audio=AudioDoc(tensor=np.zeros(4)), key_frame_indices=np.zeros(2)),
        PointCloud3D(url="http://a.b/c.ply"),
        LegacyDocument(
            text="a",
            blob=b"\xff",
            tags={"a": [1, {"b": None}]},
            chunks=[LegacyDocument(tensor=np.zeros(3), matches=[LegacyDocument()])],
        ),
    ],
    ids=lambda doc: type(doc).__name__,
)
def test_ready_made_documents_arrive_as_they_were_sent(doc: BaseDoc) -> None:
    assert_round_trips(type(doc), doc)


SCALARS = {
    "s": st.text(),
    "i": st.integers(-(2**63), 2**64 - 1),
    "f": st.floats(allow_nan=False, allow_infinity=False),
    "b": st.booleans(),
    "x": st.binary(max_size=50),
    "o": st.none() | st.text(max_size=5),
    "l": st.lists(st.integers(-9, 9) | st.none(), max_size=5),
    "d": st.dictionaries(st.text(max_size=5), st.binary(max_size=5), max_size=4),
    "v": st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=9).map(
        lambda items: np.array(items, np.float32)
    ),
}


class Mixed(BaseDoc):
    s: str
    i: int
    f: float
    b: bool
    x: bytes
    o: str | None
    l: list[int | None]
    d: dict[str, bytes]
    v: Annotated[NdArray, np.float32]


class Simple(BaseDoc):
    s: str
    i: int
    f: float
    b: bool
    x: bytes
    o: str | None
    v: Annotated[NdArray, np.float32]


class Plain(BaseModel):
    s: str
    i: int
    f: float
    b: bool
    o: str | None
    l: list[int | None]


@pytest.mark.parametrize("model", [Mixed, Simple, Plain])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_values_arrive_as_they_were_sent(model: type[BaseModel], data: st.DataObject) -> None:
    values = st.fixed_dictionaries({name: SCALARS[name] for name in SCALARS if name in model.model_fields})
    docs = [model(**fields) for fields in data.draw(st.lists(values, min_size=1, max_size=6))]
    assert_round_trips(model, *docs)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None, max_examples=100)
@given(value=JSON_VALUES)
def test_any_json_arrives_as_it_was_sent(value: Any) -> None:
    Some = create_model("Some", value=(Any, ...))
    assert_round_trips(Some, Some(value=value))


def test_a_number_without_a_fraction_is_a_float_where_the_field_says_so() -> None:
    (doc,) = codec(schema_of(Simple)).read([{"s": "", "i": 1, "f": 2, "b": True, "x": "", "o": None, "v": [1]}])
    assert (doc.f, type(doc.f)) == (2.0, float)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_says_null_for_what_it_has_no_number_for_and_msgpack_keeps_it(value: float) -> None:
    Some = create_model("Some", value=(float | None, ...))
    (received,) = by_json(schema_of(Some), [Some(value=value)])
    assert received.value is None
    (kept,) = MSGPACK_PATHS["msgpack"](schema_of(Some), [Some(value=value)])
    assert repr(kept.value) == repr(value)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**30])
def test_integers_over_64_bits_are_not_written(value: int) -> None:
    Some = create_model("Some", value=(int, ...))
    some = codec(schema_of(Some))
    with pytest.raises(ExecutorError):
        json_of(some, [Some(value=value)])
    with pytest.raises(ExecutorError):
        some.pack(some.to_values([Some(value=value)]))
    with pytest.raises(InvalidDocs):
        some.encode([Some(value=value)])


def test_what_has_no_form_at_all_is_the_executors_fault() -> None:
    Some = create_model("Some", value=(Any, ...))
    some = codec(schema_of(Some))
    with pytest.raises(ExecutorError, match="no JSON form"):
        json_of(some, [Some(value=object())])
    with pytest.raises(ExecutorError, match="msgpack"):
        some.pack(some.to_values([Some(value=object())]))


def test_numbers_of_numpy_are_numbers() -> None:
    Some = create_model("Some", value=(float, ...))
    doc = Some.model_construct(value=np.float32(0.5))
    for path in PATHS.values():
        assert [d.value for d in path(schema_of(Some), [doc])] == [0.5]


def test_no_documents_are_no_documents() -> None:
    for path in PATHS.values():
        received = path(schema_of(Simple), DocList[Simple]([]))
        assert type(received) is type(DocList[Simple]([]))
        assert received == []


def test_text_stays_text_in_json_where_a_field_may_be_text_or_bytes() -> None:
    Some = create_model("Some", value=(str | bytes, ...))
    for path in JSON_PATHS.values():
        assert [d.value for d in path(schema_of(Some), [Some(value=b"abc"), Some(value="abcd")])] == ["YWJj", "abcd"]
    assert_round_trips(Some, Some(value=b"abc"), Some(value="abcd"), paths=MSGPACK_PATHS)


def test_untyped_bytes_and_tensors_arrive_by_json_as_what_json_has() -> None:
    Some = create_model("Some", value=(Any, ...))
    docs = [Some(value=b"abc"), Some(value=np.array([[1, 2]]))]
    assert [d.value for d in by_json(schema_of(Some), docs)] == ["YWJj", [[1, 2]]]
    assert_round_trips(Some, *docs, paths=MSGPACK_PATHS)


def test_documents_of_their_own_kind_nest() -> None:
    class Tree(BaseDoc):
        twigs: list["Tree"] = []
        leaf: NdArray | None = None

    Tree.model_rebuild()
    assert_round_trips(Tree, Tree(twigs=[Tree(leaf=np.zeros(2)), Tree(twigs=[Tree()])]))


def test_two_classes_of_one_name_stay_two() -> None:
    A = create_model("Same", a=(int, ...))
    B = create_model("Same", b=(bytes, ...))
    Both = create_model("Both", a=(A, ...), b=(list[B], ...))
    assert_round_trips(Both, Both(a=A(a=1), b=[B(b=b"\xff")]))
