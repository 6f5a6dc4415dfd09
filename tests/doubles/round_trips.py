"""Documents sent along every path that a codec has, and compared with what arrives: values, classes and dtypes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from docarray.typing import NdArray
from pydantic import BaseModel

from jina_asgi.documents.codec import Codec, codec
from jina_asgi.documents.msgpack import unpack
from jina_asgi.documents.schemas import schema_of
from jina_asgi.errors import InvalidDocs
from jina_asgi.protocols.http.bodies import JSON, MSGPACK, Bodies
from jina_asgi.protocols.protobuf.documents import wire
from jina_asgi.settings import Limits
from jina_asgi.types import Endpoint, Schema


def bodies(schema: Schema, limits: Limits | None = None) -> Bodies:
    """The bodies of an endpoint that takes and gives the schema's documents."""
    return Bodies(Endpoint(name="/echo", kind="batch", input=schema, output=schema), limits or Limits())


def json_of(of: Codec, docs: Any) -> bytes:
    return of.dumps(of.to_json(docs))


V: Any = NdArray._docarray_validate(np.array([1.0, 2.0]))


def read(model: type[BaseModel], *items: dict[str, Any]) -> Any:
    return codec(schema_of(model)).read(list(items))


def errors(model: type[BaseModel], *items: Any) -> list[dict[str, Any]]:
    with pytest.raises(InvalidDocs) as raised:
        codec(schema_of(model)).read(list(items))
    return raised.value.errors


def written(model: type[BaseModel], doc: BaseModel) -> Any:
    return orjson.loads(json_of(codec(schema_of(model)), [doc]))[0]


def by_json(schema: Schema, docs: Any) -> Any:
    of = codec(schema)
    return of.read(orjson.loads(json_of(of, docs)))


def by_json_body(schema: Schema, docs: Any) -> Any:
    return bodies(schema).read(JSON, b'{"data":%s}' % json_of(codec(schema), docs)).docs.typed


def by_msgpack(schema: Schema, docs: Any) -> Any:
    return codec(schema).decode(codec(schema).encode(docs))


def by_msgpack_body(schema: Schema, docs: Any) -> Any:
    of = codec(schema)
    return bodies(schema).read(MSGPACK, of.pack({"data": of.to_values(docs)})).docs.typed


def by_columns(schema: Schema, docs: Any) -> Any:
    of = codec(schema)
    return of.from_columns(unpack(of.pack(of.to_columns(docs))))


def by_the_plan_alone(schema: Schema, docs: Any) -> Any:
    """To a process without the class, which sends them on: as a web worker in front of a pool."""
    plan = codec(replace(schema, models={}))
    return codec(schema).decode(plan.encode(plan.decode(codec(schema).encode(docs))))


def by_json_and_the_plan_alone(schema: Schema, docs: Any) -> Any:
    plan = codec(replace(schema, models={}))
    there = plan.read(orjson.loads(json_of(codec(schema), docs)))
    return codec(schema).decode(plan.encode(there))


JSON_PATHS: Mapping[str, Callable[[Schema, Any], Any]] = {
    "json": by_json,
    "json body": by_json_body,
    "json, plan": by_json_and_the_plan_alone,
}
MSGPACK_PATHS: Mapping[str, Callable[[Schema, Any], Any]] = {
    "msgpack": by_msgpack,
    "msgpack body": by_msgpack_body,
    "columns": by_columns,
    "plan": by_the_plan_alone,
}
PATHS = {**JSON_PATHS, **MSGPACK_PATHS}


def by_protobuf(schema: Schema, docs: Any) -> Any:
    of = wire(codec(schema))
    return of.read(of.write(docs), Limits())


def by_protobuf_and_the_plan_alone(schema: Schema, docs: Any) -> Any:
    """To a web worker without the class and back, as protobuf; between it and the pool as msgpack."""
    plan = codec(replace(schema, models={}))
    there = plan.decode(plan.encode(wire(plan).read(wire(codec(schema)).write(docs), Limits())))
    return wire(codec(schema)).read(wire(plan).write(there), Limits())


PROTOBUF_PATHS: Mapping[str, Callable[[Schema, Any], Any]] = {
    "protobuf": by_protobuf,
    "protobuf, plan": by_protobuf_and_the_plan_alone,
}


def assert_round_trips(
    model: type[BaseModel], *docs: BaseModel, paths: Mapping[str, Callable[[Schema, Any], Any]] = PATHS
) -> None:
    """Assert that documents arrive equal, in the endpoint's own list type, alone and among five of their kind."""
    schema = schema_of(model)
    for sent in (codec(schema).wrap(list(docs)), codec(schema).wrap(list(docs) * 5)):
        for name, path in paths.items():
            received = path(schema, sent)
            assert type(received) is type(sent), name
            assert_same(sent, received, name)


def assert_same(expected: Any, actual: Any, where: str = "") -> None:
    """Equal in value and class, through documents, containers and tensors."""
    assert type(expected) is type(actual), f"{where}: {type(expected)} became {type(actual)}"
    if isinstance(expected, BaseModel):
        for name in type(expected).model_fields:
            assert_same(getattr(expected, name), getattr(actual, name), f"{where}.{name}")
        assert expected.__pydantic_extra__ == actual.__pydantic_extra__, where
        assert expected.__pydantic_private__ == actual.__pydantic_private__, where
    elif isinstance(expected, dict):
        assert list(expected) == list(actual), where
        for key, value in expected.items():
            assert_same(value, actual[key], f"{where}[{key!r}]")
    elif isinstance(expected, list | tuple):
        assert len(expected) == len(actual), where
        for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
            assert_same(one, other, f"{where}[{index}]")
    elif isinstance(expected, np.ndarray):
        assert (expected.dtype, expected.shape) == (actual.dtype, actual.shape), where
        assert np.array_equal(expected, actual, equal_nan=expected.dtype.kind == "f"), where
    elif type(expected).__module__.startswith(("torch", "docarray.typing.tensor")):
        assert (expected.dtype, expected.shape) == (actual.dtype, actual.shape), where
        assert bool((expected == actual).all()), where
    else:
        assert expected == actual, where
