"""What a document class says of itself is kept: validators, constraints, aliases, extras, serializers, private state."""

import dataclasses
import datetime
from typing import Annotated, Any

import msgspec
import numpy as np
import orjson
import pytest
from docarray import BaseDoc, DocList
from docarray.typing import ID, NdArray
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    computed_field,
    create_model,
    field_serializer,
    field_validator,
    model_validator,
)

from jina_asgi.documents import document_types
from jina_asgi.documents.codec import codec
from jina_asgi.documents.schemas import schema_of
from jina_asgi.errors import InvalidDocs
from tests.doubles.round_trips import (
    JSON_PATHS,
    MSGPACK_PATHS,
    PATHS,
    V,
    assert_round_trips,
    by_msgpack,
    errors,
    read,
    written,
)


class Bounded(BaseDoc):
    n: int = Field(gt=0)
    v: NdArray = V


class BoundedWithin(BaseDoc):
    n: Annotated[int, Field(gt=0)] | None = None


class BoundedInAList(BaseDoc):
    n: list[Annotated[int, Field(gt=0)]] = []


class Doubled(BaseDoc):
    n: int

    @field_validator("n")
    @classmethod
    def double(cls, value: int) -> int:
        return value * 2


class DoubledByType(BaseDoc):
    n: Annotated[int, AfterValidator(lambda value: value * 2)] | None = None


class Checked(BaseDoc):
    n: int
    v: NdArray = V

    @model_validator(mode="after")
    def check(self) -> "Checked":
        if self.n > 3:
            raise ValueError("n is at most 3")
        return self


class Stripped(BaseDoc):
    model_config = ConfigDict(str_strip_whitespace=True)  # type: ignore[assignment]
    s: str


class PostInit(BaseDoc):
    n: int
    m: int = 0

    def model_post_init(self, context: Any) -> None:
        self.m = self.n + 1


class Private(BaseDoc):
    n: int
    _state: list[int] = PrivateAttr(default_factory=lambda: [1])


@pytest.mark.parametrize("model", [Bounded, BoundedWithin])
def test_a_constraint_is_checked(model: type[BaseModel]) -> None:
    assert [d.n for d in read(model, *[{"n": 1}] * 5)] == [1] * 5
    (entry,) = errors(model, {"n": 1}, {"n": 1}, {"n": 1}, {"n": 0}, {"n": 1})
    assert (entry["type"], entry["loc"]) == ("greater_than", [3, "n"])


def test_a_constraint_within_a_list_is_checked() -> None:
    assert errors(BoundedInAList, {"n": [1, 0]})[0]["loc"] == [0, "n", 1]


@pytest.mark.parametrize("model", [Doubled, DoubledByType])
def test_a_validator_that_changes_the_value_runs_once(model: type[BaseModel]) -> None:
    assert [d.n for d in read(model, *[{"n": 2}] * 5)] == [4] * 5


def test_a_validator_of_the_whole_runs_and_says_why() -> None:
    assert errors(Checked, {"n": 4, "v": [1, 2]})[0]["msg"] == "Value error, n is at most 3"
    assert_round_trips(Checked, Checked(n=3, v=V))


def test_text_is_stripped_where_the_class_says_so() -> None:
    assert [d.s for d in read(Stripped, *[{"s": " a "}] * 5)] == ["a"] * 5


@pytest.mark.parametrize("doc", [PostInit(n=1), Private(n=1)], ids=lambda doc: type(doc).__name__)
def test_what_follows_construction_follows_reading(doc: BaseDoc) -> None:
    assert_round_trips(type(doc), doc)


def test_private_state_is_not_written() -> None:
    assert written(Private, Private(n=1)).keys() == {"id", "n"}


class Aliased(BaseDoc):
    class_: str = Field(alias="class")
    v: NdArray = Field(alias="vec")
    b: bytes = Field(b"", alias="blob")


class Generated(BaseDoc):
    model_config = ConfigDict(alias_generator=str.upper, populate_by_name=True)  # type: ignore[assignment]
    v: NdArray


class Chosen(BaseModel):
    v: bytes = Field(validation_alias=AliasChoices("x", "y"))


class WithAliased(BaseDoc):
    inner: Aliased
    all: DocList[Generated]


ALIASED = Aliased(**{"class": "a", "vec": V, "blob": b"\xff"})


def test_aliases_name_the_fields_on_the_wire() -> None:
    assert written(Aliased, ALIASED) == {"id": ALIASED.id, "class": "a", "vec": [1.0, 2.0], "blob": "/w=="}
    assert_round_trips(Aliased, ALIASED)
    assert_round_trips(Generated, Generated(v=V))
    assert_round_trips(WithAliased, WithAliased(inner=ALIASED, all=DocList[Generated]([Generated(v=V)])))


@pytest.mark.parametrize("key", ["x", "y", "v"])
def test_a_field_comes_by_any_of_its_names(key: str) -> None:
    assert [d.v for d in read(Chosen, {key: "/w=="})] == [b"\xff"]


def test_an_alias_of_the_answer_alone_is_in_the_answer_alone() -> None:
    Some = create_model("Some", n=(int, Field(serialization_alias="number")))
    assert written(Some, Some(n=1)) == {"number": 1}
    assert_round_trips(Some, Some(n=1), paths=MSGPACK_PATHS)


class Open(BaseDoc):
    model_config = ConfigDict(extra="allow")  # type: ignore[assignment]
    n: int
    b: bytes = b""


class Closed(BaseDoc):
    model_config = ConfigDict(extra="forbid")  # type: ignore[assignment]
    n: int


class WithOpen(BaseDoc):
    inner: Open
    all: DocList[Open] = DocList[Open]()


def test_extra_fields_are_kept_refused_or_dropped_as_the_class_says() -> None:
    assert_round_trips(Open, Open(n=1, m="x", k=[1], b=b"\xff"))
    assert_round_trips(WithOpen, WithOpen(inner=Open(n=1, m="x")))
    assert errors(Closed, {"n": 1, "m": 2})[0]["type"] == "extra_forbidden"
    assert read(Doubled, {"n": 1, "m": 2})[0].model_extra is None


@pytest.mark.parametrize("model", [Open, Closed, Doubled])
def test_without_the_class_fields_that_the_plan_does_not_know_are_left_to_the_class(model: type[BaseModel]) -> None:
    sent = [{"id": "a", "n": 1, "m": 2}]
    assert codec(dataclasses.replace(schema_of(model), models={})).read(sent) == sent


def test_a_frozen_class_arrives_as_it_was_sent() -> None:
    class Frozen(BaseDoc):
        model_config = ConfigDict(frozen=True)  # type: ignore[assignment]
        n: int

    assert_round_trips(Frozen, Frozen(n=1))


def test_a_secret_reaches_another_process_and_no_answer() -> None:
    Some = create_model("Some", key=(SecretStr, ...))
    doc = Some(key=SecretStr("hush"))
    schema = schema_of(Some)
    assert written(Some, doc) == {"key": "**********"}
    assert b"hush" not in codec(schema).pack(codec(schema).to_values([doc]))
    (received,) = by_msgpack(schema, [doc])
    assert received.key.get_secret_value() == "hush"


def test_a_document_read_is_not_the_one_sent_nor_shares_its_values() -> None:
    Some = create_model("Some", __base__=BaseDoc, v=(NdArray, ...), words=(list[str], ...))
    doc = Some(v=V, words=["a"])
    for path in PATHS.values():
        (received,) = path(schema_of(Some), [doc])
        received.v[0] = 9.0
        received.words.append("b")
        assert (doc.v.tolist(), doc.words) == ([1.0, 2.0], ["a"])


def test_the_same_error_is_reported_on_every_path_of_json() -> None:
    Some = create_model("Some", __base__=BaseDoc, n=(int, ...), inner=(list[Bounded], []))
    bad = Some.model_construct(id=ID("a"), n="x", inner=[])
    for name in ("json", "json body"):
        with pytest.raises(InvalidDocs) as told:
            JSON_PATHS[name](schema_of(Some), [bad])
        assert told.value.errors[0]["loc"][-2:] == [0, "n"]


def test_the_path_to_what_is_wrong_leads_through_lists_and_documents() -> None:
    Holder = create_model("Holder", all=(list[Bounded], ...), some=(dict[str, bytes], {}))
    good = {"n": 1, "v": [1.0]}
    assert errors(Holder, {"all": [good, {"n": 1, "v": ["x"]}]})[0]["loc"] == [0, "all", 1, "v"]
    assert errors(Holder, {"all": [good, {"n": 0, "v": [1.0]}]})[0]["loc"] == [0, "all", 1, "n"]
    assert errors(Holder, {"all": [], "some": {"a": "*"}})[0]["loc"] == [0, "some", "a"]


def test_a_request_in_json_is_what_its_class_reads_again() -> None:
    """For servers that have no msgpack."""

    class Own(BaseModel):
        model_config = ConfigDict(extra="forbid")
        n: int = Field(1, serialization_alias="number")
        hidden: bytes = Field(b"", exclude=True)
        key: SecretStr = SecretStr("")
        inner: list["Own"] = []

        @field_serializer("n")
        def more(self, value: int) -> int:
            return value + 100

        @computed_field  # type: ignore[prop-decorator]
        @property
        def twice(self) -> int:
            return 2 * self.n

    doc = Own(n=3, hidden=b"\xff", key=SecretStr("hush"), inner=[Own(n=4)])
    of = codec(schema_of(Own))
    sent = orjson.loads(of.dumps_request(of.to_values([doc])))
    assert [doc] == list(of.read(sent))


def test_a_document_of_any_fields_is_written_with_all_of_them() -> None:
    doc = document_types.any_docs([{"id": "a", "text": "t", "v": np.ones(2)}])[0]
    assert b"text" in codec(schema_of(document_types.AnyDoc)).encode([doc])[0]


class EitherOfTwo(BaseModel):
    at: datetime.datetime | str


class StrictTime(BaseModel):
    at: datetime.datetime
    raw: bytes = b""

    model_config = ConfigDict(strict=True)


class SomeTime(BaseModel):
    at: datetime.datetime


#: pydantic reads no offset with seconds, such as those of the times before 1900.
OLD_TIME = datetime.datetime(1890, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(minutes=19, seconds=32)))


@pytest.mark.parametrize(
    "doc",
    [
        EitherOfTwo(at=OLD_TIME.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=1)))),
        EitherOfTwo(at="2024-02-29T12:00:00+05:30"),
        StrictTime(at=OLD_TIME.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=1)))),
        SomeTime(at=OLD_TIME),
    ],
    ids=str,
)
def test_a_datetime_arrives_as_the_same_moment_where_its_text_could_not_be_read(doc: BaseModel) -> None:
    made = codec(schema_of(type(doc)))
    [read] = made.decode(made.encode([doc]))
    assert doc == read


def test_a_datetime_of_msgpacks_own_is_read_too() -> None:
    moment = OLD_TIME.replace(tzinfo=datetime.UTC)
    [read] = codec(schema_of(SomeTime)).decode([msgspec.msgpack.encode({"at": moment})])
    assert moment == read.at
