"""A document class as data: plain, equal to its copy on the other side of a wire, and enough to check by."""

from dataclasses import asdict, replace
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.documents import ImageDoc
from docarray.typing import ImageUrl, NdArray
from pydantic import BaseModel, create_model

from jina_asgi.documents.codec import codec
from jina_asgi.documents.document_types import LegacyDocument
from jina_asgi.documents.schemas import schema_of
from jina_asgi.errors import DefinitionError, InvalidDocs
from jina_asgi.types import Field, Schema


class Chunk(BaseDoc):
    text: str
    vector: Annotated[NdArray[4], np.float32] | None = None  # type: ignore[valid-type]


class Page(BaseDoc):
    url: ImageUrl
    chunks: DocList[Chunk]
    pair: tuple[int, bytes] = (0, b"")
    many: tuple[float, ...] = ()
    tags: dict[str, list[str | None]] = {}
    grid: NdArray[2, "x"] = None  # type: ignore[valid-type,name-defined,type-arg,assignment]  # noqa: F821


def test_a_class_becomes_its_field_plan() -> None:
    schema = schema_of(Page)
    assert (schema.name, schema.model, set(schema.documents)) == ("Page", Page, {"Page", "Chunk"})
    text = Field("", "str", nullable=True)
    assert schema.fields == (
        Field("id", "str", nullable=True, required=False, tag="id"),
        Field("url", "str", tag="image_url"),
        Field("chunks", "docs", doc="Chunk"),
        Field("pair", "tuple", required=False, items=(Field("", "int"), Field("", "bytes"))),
        Field("many", "list", required=False, items=(Field("", "float"),)),
        Field("tags", "dict", required=False, items=(Field("", "list", items=(text,)),)),
        Field("grid", "tensor", required=False, shape=(2, None), tag="ndarray"),
    )
    assert schema.documents["Chunk"][2] == Field(
        "vector", "tensor", nullable=True, required=False, dtype="<f4", shape=(4,), tag="ndarray"
    )


@pytest.mark.parametrize("model", [Page, Chunk, ImageDoc, LegacyDocument])
def test_a_schema_equals_its_copy_on_the_other_side_of_a_wire(model: type[BaseModel]) -> None:
    schema = schema_of(model)
    described = {"name": schema.name, "documents": schema.documents, "json_schema": schema.json_schema}
    packed = msgspec.msgpack.decode(msgspec.msgpack.encode(described))
    documents = msgspec.convert(packed["documents"], dict[str, tuple[Field, ...]])
    copy = Schema(packed["name"], documents, packed["json_schema"])
    assert copy == schema == schema_of(model)
    assert asdict(replace(copy, models={})) == asdict(replace(schema, models={}))


def test_the_plan_alone_reads_dicts_and_leaves_it_to_their_class_to_refuse_them() -> None:
    plan = codec(replace(schema_of(Page), models={}))
    chunk = {"id": "c", "text": "a", "vector": [1, 2, 3, 4]}
    (page,) = plan.read([{"id": "p", "url": "http://a/b.png", "chunks": [chunk], "pair": [1, "/w=="]}])
    assert page["chunks"][0]["vector"].dtype == np.float32
    assert page["pair"] == [1, b"\xff"]
    cases: list[tuple[Any, list[Any]]] = [
        ({"url": 5, "chunks": []}, ["url"]),
        ({"url": "a"}, ["chunks"]),
        ({"url": "a", "chunks": [{"text": "a"}, {"text": 5}]}, ["chunks", 1, "text"]),
        ({"url": "a", "chunks": [{"text": "a", "vector": [1, 2]}]}, ["chunks", 0, "vector"]),
        ({"url": "a", "chunks": [], "pair": [1]}, ["pair"]),
        ({"url": "a", "chunks": [], "tags": {"a": [1]}}, ["tags", "a", 0]),
        ({"url": "a", "chunks": [], "grid": [1.0, 2.0]}, ["grid"]),
        ([], []),
    ]
    for wrong, where in cases:
        with pytest.raises(InvalidDocs) as told:
            codec(schema_of(Page)).read(plan.read([wrong]))
        assert told.value.errors[0]["loc"] == [0, *where]


def test_the_json_schema_is_made_of_the_plan_where_docarray_cannot_say_it() -> None:
    made = schema_of(Page).json_schema
    assert made["properties"]["chunks"] == {"type": "array", "items": {"$ref": "#/$defs/Chunk"}}
    assert made["required"] == ["url", "chunks"]
    assert set(made["$defs"]) == {"Page", "Chunk"}


def test_a_name_that_cannot_be_resolved_is_named() -> None:
    nowhere: Any = ("Nowhere", ...)
    Some = create_model("Some", __base__=BaseDoc, value=nowhere)
    with pytest.raises(DefinitionError, match="Nowhere"):
        schema_of(Some)
