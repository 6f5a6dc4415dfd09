"""What an endpoint answers, in the media type asked for: a body, or one document of a stream after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from jina_asgi.codecs import Codec
from jina_asgi.protocols.bodies import JSON, PROTOBUF, protobuf
from jina_asgi.types import Docs, Result


def answer(
    result: Result,
    parameters: dict[str, Any],
    request_id: str,
    media: str,
    *,
    columns: bool = False,
    with_json: bool = False,
) -> bytes:
    """The body of an answer in the media type asked for; `with_json`: msgpack with what JSON would say too.

    Raises:
        ExecutorError: a value among the docs has no such form.
    """
    docs = result.docs
    writer: Codec = docs.codec
    if result.results:
        parameters = {**parameters, "__results__": result.results}
    header = {"request_id": request_id, "target_executor": ""}
    if media == PROTOBUF:
        raw: bytes = protobuf().response(result, parameters, request_id)
        return raw
    if media == JSON:
        return writer.dumps({"data": writer.to_json(docs.typed), "parameters": parameters, "header": header})
    data: Any
    if with_json:
        data = list(map(msgspec.Raw, writer.answered(docs.typed)))
    else:
        data = {"columns": writer.to_columns(docs.typed)} if columns else writer.to_values(docs.typed)
    return writer.pack({"data": data, "parameters": dict(parameters), "header": header})


def step_in(media: str, *, with_json: bool = False) -> Callable[[Docs], bytes]:
    """What writes one document of a stream in a media type; it raises as `answer` does."""
    if media == JSON:
        return _json_step
    return _step_with_json if with_json else _packed_step


def _json_step(docs: Docs) -> bytes:
    codec: Codec = docs.codec
    return codec.dumps(codec.to_json(docs.typed)[0])


def _step_with_json(docs: Docs) -> bytes:
    codec: Codec = docs.codec
    return codec.answered(docs.typed)[0]


def _packed_step(docs: Docs) -> bytes:
    codec: Codec = docs.codec
    return codec.pack(codec.to_values(docs.typed)[0])
