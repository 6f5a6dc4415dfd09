"""Writes an endpoint's answers in the requested media type: a body, or the documents of a stream.

Large answers are written in a thread, in pieces between which the event loop runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import msgspec

from jina_asgi.concurrency.offload import parse_in_thread
from jina_asgi.concurrency.tasks import is_cancel
from jina_asgi.documents.codec import Codec
from jina_asgi.errors import ExecutorError, InvalidDocs, JinaASGIError
from jina_asgi.errors._raised import is_a, is_ours, sanitized
from jina_asgi.errors._shown import safe_str
from jina_asgi.protocols.http.bodies import JSON, PROTOBUF, protobuf
from jina_asgi.protocols.size_guard import are_large
from jina_asgi.types import Call, Docs, Result

T = TypeVar("T")


def answer(
    result: Result,
    parameters: dict[str, Any],
    request_id: str,
    media: str,
    columns: bool = False,
    with_json: bool = False,
    *,
    in_pieces: bool = False,
) -> bytes:
    """Writes the body of an answer; `with_json`: msgpack that also has the documents' JSON.

    `in_pieces`: let other threads run meanwhile.

    Raises:
        ExecutorError: a value cannot be written in this media type.
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
        return writer.dumps_answer(docs.typed, {"parameters": parameters, "header": header}, in_pieces=in_pieces)
    data: Any
    if with_json:
        data = list(map(msgspec.Raw, writer.encode_for_clients(docs.typed, in_pieces=in_pieces)))
    else:
        data = {"columns": writer.to_columns(docs.typed)} if columns else writer.to_values(docs.typed)
    return writer.pack({"data": data, "parameters": dict(parameters), "header": header}, in_pieces=in_pieces)


async def written(call: Call, large: bool, write: Callable[..., T], *given: Any) -> T:
    """Writes an answer with `write`, a function as `answer`; a `large` one in a thread, in pieces.

    Raises:
        ExecutorError: a value cannot be written in this media type.
    """
    try:
        return await parse_in_thread(None, write, *given, in_pieces=True) if large else write(*given)
    except BaseException as error:
        if is_cancel(error):
            raise
        raise unwritable(call, error) from error


class WriteDocument(Protocol):
    """Writes one document of a stream; it raises as `answer` does."""

    def __call__(self, docs: Docs, /, *, in_pieces: bool = False) -> bytes: ...


def step_in(media: str, *, with_json: bool = False) -> WriteDocument:
    """The function that writes one document of a stream in a media type."""
    if media == JSON:
        return _json_step
    return _step_with_json if with_json else _packed_step


async def written_step(call: Call, docs: Docs, media: str, step: WriteDocument, frame: Callable[[bytes], T]) -> T:
    """Writes one document of a stream with `step`, and frames it; a large one in a thread. Raises as `written` does."""
    try:
        if are_large(docs, media):
            return await parse_in_thread(None, lambda: frame(step(docs, in_pieces=True)))
        return frame(step(docs))
    except BaseException as error:
        if is_cancel(error):
            raise
        raise unwritable(call, error) from error


def _json_step(docs: Docs, /, *, in_pieces: bool = False) -> bytes:
    codec: Codec = docs.codec
    if not in_pieces:
        return codec.dumps_doc(docs.typed[0])
    return codec.dumps(codec.to_json(docs.typed, in_pieces=True)[0], in_pieces=True)


def _step_with_json(docs: Docs, /, *, in_pieces: bool = False) -> bytes:
    codec: Codec = docs.codec
    return codec.encode_for_clients(docs.typed, in_pieces=in_pieces)[0]


def _packed_step(docs: Docs, /, *, in_pieces: bool = False) -> bytes:
    codec: Codec = docs.codec
    return codec.pack(codec.to_values(docs.typed)[0], in_pieces=in_pieces)


def unwritable(call: Call, error: BaseException) -> JinaASGIError:
    """The error for an answer that cannot be written in the requested media type: the Executor's fault, not the client's."""
    if is_ours(error) and not is_a(error, InvalidDocs):
        return cast("JinaASGIError", sanitized(error))
    return ExecutorError(
        f"{call.endpoint} returned an answer that cannot be written: {safe_str(error)}", endpoint=call.endpoint
    )
