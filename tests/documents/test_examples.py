"""What an endpoint is tried with: a document that its own schema takes."""

from __future__ import annotations

from datetime import date
from enum import Enum
from typing import Any, Literal

import pytest
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from pydantic import BaseModel, ConfigDict, Field

from jina_asgi.documents._examples import document_example, value_example
from jina_asgi.documents.codec import codec
from jina_asgi.documents.schemas import schema_of


class Colour(Enum):
    red = "red"


class Inner(BaseModel):
    name: str = Field(min_length=8)
    size: int = Field(gt=10, le=11)


class Outer(BaseModel):
    inner: Inner
    several: list[Inner]
    colour: Colour
    kind: Literal["a", "b"]
    day: date
    pair: tuple[int, str]
    either: int | str
    maybe: float | None
    flags: dict[str, bool]
    left_out: str = "default"


class Vectors(BaseDoc):
    vector: NdArray[3, 2]  # type: ignore[type-arg, valid-type]  # docarray's own
    anything: NdArray
    parts: DocList[BaseDoc]


@pytest.mark.parametrize("model", [Inner, Outer, Vectors])
def test_an_example_is_taken_by_its_own_schema(model: Any) -> None:
    schema = schema_of(model)
    made = document_example(schema)
    (doc,) = codec(schema).read([made])
    assert isinstance(doc, model)
    assert "left_out" not in made
    assert "id" not in made


def test_what_the_author_gives_is_taken() -> None:
    class Prompt(BaseModel):
        text: str = Field(examples=["once upon a time"])
        seed: int = Field(0, examples=[7])

    class Whole(BaseModel):
        model_config = ConfigDict(json_schema_extra={"examples": [{"text": "all of it"}]})
        text: str

    assert {"text": "once upon a time", "seed": 7} == document_example(schema_of(Prompt))
    assert {"text": "all of it"} == document_example(schema_of(Whole))


def test_parameters_have_what_is_required() -> None:
    made = value_example(Outer.model_json_schema())
    assert Outer.model_validate(made).inner.size == 11


def test_a_schema_that_refers_to_itself_has_an_end() -> None:
    class Tree(BaseModel):
        name: str
        children: list[Tree] = []

    assert {"name": "text"} == document_example(schema_of(Tree)) == value_example(Tree.model_json_schema())
