"""What a document class says of its own JSON is kept: strictness, computed fields, serializers, types of its own."""

import base64
import dataclasses
import datetime
import uuid
from functools import cached_property
from typing import Annotated, Any, Generic, Literal, TypeVar

import orjson
import pytest
from docarray import BaseDoc
from docarray.typing import NdArray
from pydantic import (
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    RootModel,
    computed_field,
    create_model,
    field_serializer,
    model_serializer,
)
from pydantic_core import core_schema

from jina_asgi.documents.codec import codec
from jina_asgi.documents.schemas import schema_of
from jina_asgi.errors import ExecutorError
from tests.doubles.round_trips import MSGPACK_PATHS, V, assert_round_trips, by_msgpack, errors, written


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    n: int
    at: datetime.datetime
    key: uuid.UUID
    pair: tuple[int, ...]
    some: set[int]


STRICT = Strict(n=3, at=datetime.datetime(2024, 1, 1), key=uuid.UUID(int=1), pair=(1,), some={1})


def test_a_strict_class_reads_what_json_can_say_and_converts_nothing() -> None:
    assert_round_trips(Strict, STRICT)
    assert errors(Strict, {**orjson.loads(STRICT.model_dump_json()), "n": "3"})[0]["type"] == "int_type"


def test_a_strict_class_with_bytes_or_tensors_converts_nothing() -> None:
    Some = create_model("Some", __config__=ConfigDict(strict=True), n=(int, ...), v=(NdArray, ...))
    assert_round_trips(Some, Some(n=1, v=V))
    assert errors(Some, {"n": "1", "v": [1.0]})[0]["loc"] == [0, "n"]


class Computed(BaseDoc):
    n: int
    v: NdArray = V

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.n

    @cached_property
    def heavy(self) -> object:
        return object()


class Cached(BaseDoc):
    n: int

    @cached_property
    def heavy(self) -> object:
        return object()


class WithCached(BaseModel):
    inner: Cached


def test_a_computed_field_is_in_the_json_and_not_read() -> None:
    assert written(Computed, Computed(n=2))["twice"] == 4
    assert_round_trips(Computed, Computed(n=2))


@pytest.mark.parametrize("raised", [RuntimeError("x"), KeyError("x"), StopIteration()])
def test_what_a_computed_field_raises_is_the_executors_fault(raised: Exception) -> None:
    class Failing(BaseModel):
        @computed_field  # type: ignore[prop-decorator]
        @property
        def value(self) -> int:
            raise raised

    of = codec(schema_of(Failing))
    with pytest.raises(ExecutorError):
        of.to_json([Failing()])


def test_what_a_document_has_cached_is_its_own() -> None:
    for doc in (Computed(n=1), Cached(n=1)):
        assert doc.heavy
        assert_round_trips(type(doc), doc)
    doc = Cached(n=1)
    assert doc.heavy
    assert_round_trips(WithCached, WithCached(inner=doc))


class Served(BaseDoc):
    at: datetime.datetime
    n: int
    v: NdArray
    b: bytes = b"\xff"
    inner: Computed | None = None

    @field_serializer("n", when_used="json")
    def as_text(self, value: int) -> str:
        return f"n{value}"


def test_a_serializer_makes_the_json_and_bytes_and_tensors_stay_ours() -> None:
    doc = Served(at=datetime.datetime(2024, 1, 1), n=1, v=V, inner=Computed(id="c", n=2))
    made = {"id": doc.id, "at": "2024-01-01T00:00:00", "n": "n1", "v": [1.0, 2.0], "b": "/w=="}
    assert written(Served, doc) == {**made, "inner": {"id": "c", "n": 2, "twice": 4, "v": [1.0, 2.0]}}
    assert_round_trips(Served, doc, paths=MSGPACK_PATHS)


def test_a_serializer_within_a_type_makes_the_json() -> None:
    numbers: Any = list[Annotated[int, PlainSerializer(str, when_used="json")]]
    Some = create_model("Some", n=(numbers, ...))
    assert written(Some, Some(n=[1])) == {"n": ["1"]}


def test_a_serializer_of_the_whole_makes_the_json() -> None:
    class Whole(BaseModel):
        n: int

        @model_serializer
        def whole(self) -> dict[str, Any]:
            return {"n": self.n, "kind": "whole"}

    assert written(Whole, Whole(n=1)) == {"n": 1, "kind": "whole"}
    assert_round_trips(Whole, Whole(n=1))


def test_an_excluded_field_is_not_in_the_json() -> None:
    Some = create_model("Some", n=(int, 1), hidden=(bytes, Field(b"x", exclude=True)))
    assert written(Some, Some(n=1)) == {"n": 1}


def test_a_subclass_is_written_as_the_class_that_the_schema_names() -> None:
    Base = create_model("Base", n=(int, 1))
    Sub = create_model("Sub", __base__=Base, secret=(str, "s"))
    Holder = create_model("Holder", inner=(Base, ...))
    assert written(Base, Sub()) == {"n": 1}
    assert written(Holder, Holder(inner=Sub())) == {"inner": {"n": 1}}
    (received,) = by_msgpack(schema_of(Holder), [Holder(inner=Sub())])
    assert received == Holder(inner=Base())


class Hue:
    """A type that only its own core schema can read and write."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hue) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls(value),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.name),
        )


def test_types_that_only_pydantic_knows_arrive_as_they_were_sent() -> None:
    Hued = create_model("Hued", one=(Hue, ...), some=(list[Hue], ...))
    assert_round_trips(Hued, Hued(one=Hue("red"), some=[Hue("blue")]))
    Encoded = create_model("Encoded", b=(Base64Bytes, ...))
    assert_round_trips(Encoded, Encoded(b=base64.b64encode(b"\xff\xfe")))


T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    item: T


class Words(RootModel[list[str]]):
    pass


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    picture: bytes


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    n: int


def test_generics_root_models_dataclasses_and_tagged_unions_arrive_as_they_were_sent() -> None:
    assert_round_trips(Box[int], Box[int](item=1))
    assert_round_trips(Box[Computed], Box[Computed](item=Computed(n=1)))
    assert schema_of(Box[int]).name == "Box_int_"
    Odd = create_model("Odd", words=(Words, ...), point=(Point, ...))
    assert_round_trips(Odd, Odd(words=Words(["a"]), point=Point(1)))
    Pet = create_model("Pet", pet=(Cat | Dog, Field(discriminator="kind")))
    assert_round_trips(Pet, Pet(pet=Cat(picture=b"\xff")), Pet(pet=Dog(n=1)))
