"""Encodes and decodes calls and results as the heads and docs of frames."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from jina_asgi.documents import _sizes
from jina_asgi.documents.codec import codec
from jina_asgi.documents.msgpack import pack, unpack
from jina_asgi.errors import (
    ExecutorError,
    InvalidDocs,
    InvalidRequest,
    JinaASGIError,
    ProtocolError,
    UnknownEndpoint,
)
from jina_asgi.errors._raised import error_text
from jina_asgi.errors._shown import safe_str
from jina_asgi.protocols.frames._heads import CallHead, ResultHead, read, write
from jina_asgi.protocols.frames._layout import Buffer, Frame
from jina_asgi.protocols.frames._rules import Credit
from jina_asgi.types import EMPTY, Call, Context, Docs, Endpoint, Parts, Result, Step, resolve


def are_large(docs: Docs) -> bool:
    """Whether encoding these docs is slow enough for a thread; tensors do not count, as they are not copied."""
    return docs.is_typed and not docs.is_encoded and _sizes.are_large(docs.typed, copied=False)


def write_call(
    call: Call, *, items: int = 0, size: int = 0, in_pieces: bool = False
) -> tuple[bytes, Sequence[Buffer | Parts]]:
    """Encodes a call as the head and docs of a frame; `items` and `size` are a stream's initial credit.

    With `in_pieces` other threads get to run in between.

    Raises:
        InvalidRequest: parameters, identity or context hold values that cannot cross to another process.
    """
    context = call.context
    docs = _parts(call.begin(), in_pieces)
    if context.record is not None:
        context.record.leave()
    sources: list[tuple[str, int]] = []
    if call.sources:
        docs = list(docs)
        for node, its_docs in call.sources:
            docs += _parts(its_docs, in_pieces)
            sources.append((node, len(its_docs)))
    head = CallHead(
        call.endpoint,
        context.request_id,
        _pack("the parameters", dict(call.parameters)) if call.parameters else b"",
        dict(context.headers) if context.headers else {},
        None if context.deadline is None else context.deadline - time.monotonic(),
        b"" if context.identity is None else _pack("the identity", context.identity),
        context.tenant,
        context.priority,
        sources,
        items,
        size,
        None if context.costs is None else [*context.costs],
        None if context.inputs is None else [*context.inputs],
        call.giver,
        [*context.request_ids],
        dict(context.carrier) if context.carrier else {},
    )
    return write(head), docs


def read_call(frame: Frame, endpoints: Mapping[str, Endpoint]) -> tuple[Call, Credit]:
    """Decodes the call of a frame, its docs still encoded, and a stream's initial credit.

    Raises:
        UnknownEndpoint: `endpoints` has neither this endpoint nor '/default'.
        InvalidRequest: the head is malformed. The connection is sanitized: only this call fails.
    """
    try:
        head = read(frame, CallHead)
    except ProtocolError as error:
        raise InvalidRequest(error.message) from error
    endpoint = resolve(endpoints, head.endpoint)
    if endpoint is None:
        raise UnknownEndpoint(f"there is no endpoint {head.endpoint!r} and no '/default'")
    of_input = codec(endpoint.input)
    docs, sources = frame.docs, []
    if head.sources:
        position = own = len(docs) - sum(count for _, count in head.sources)
        if own < 0:
            raise InvalidRequest(f"a call's sources ask for more docs than the {len(docs)} that came")
        for node, count in head.sources:
            sources.append((node, of_input.encoded(docs[position : position + count])))
            position += count
        docs = docs[:own]
    parameters: Any = unpack(head.parameters) if head.parameters else EMPTY
    if not isinstance(parameters, Mapping):
        raise InvalidRequest(f"expected a mapping of parameters, not {type(parameters).__name__}")
    context = Context(
        head.request_id,
        headers=head.headers or EMPTY,
        deadline=None if head.remaining is None else time.monotonic() + head.remaining,
        identity=unpack(head.identity) if head.identity else None,
        tenant=head.tenant,
        priority=head.priority,
    )
    if head.trace:
        context.carrier = head.trace
    if head.costs is not None and len(head.costs) == len(docs):
        context.costs = head.costs
    if head.inputs is not None and len(head.inputs) == len(docs):
        context.inputs = head.inputs
    if head.request_ids:
        context.request_ids = head.request_ids
    call = Call(head.endpoint, of_input.encoded(docs), parameters, context, tuple(sources), "", head.giver)
    return call, Credit(head.items, head.size)


def write_result(result: Result, *, in_pieces: bool = False) -> tuple[bytes, Sequence[Buffer | Parts]]:
    """Encodes a result as the head and docs of a frame; `in_pieces` as in `write_call`.

    Raises:
        ExecutorError: it holds values that cannot cross to another process.
    """
    docs = encoded_answer(result.docs, in_pieces=in_pieces)
    if not (result.results or result.trail):
        return b"", docs
    try:
        results = _pack("the results", dict(result.results)) if result.results else b""
        head = write(ResultHead(results, [(step.name, step.start, step.end, step.error) for step in result.trail]))
    except InvalidRequest as error:
        raise ExecutorError(error.message) from error
    return head, docs


def encoded_answer(docs: Docs, *, in_pieces: bool = False) -> Sequence[Buffer | Parts]:
    """Encodes the docs that an endpoint returned; `in_pieces` as in `write_call`.

    Raises:
        ExecutorError: they hold values that cannot be encoded; the caller is not at fault.
    """
    try:
        return docs.codec.encode_answers(docs.typed, in_pieces=in_pieces) if docs.is_typed else docs.parts
    except InvalidDocs as error:
        raise ExecutorError(error.message) from error
    except BaseException as error:
        raise ExecutorError(f"documents that cannot be encoded: {error_text(error)}") from error


def read_result(frame: Frame, endpoint: Endpoint) -> Result:
    """Decodes the result of a frame, its docs still encoded.

    Raises:
        ProtocolError: the head is malformed.
        ExecutorError: its results nest too deep to be decoded here.
    """
    docs = docs_of(frame, endpoint)
    if not frame.head:
        return Result(docs)
    head = read(frame, ResultHead)
    try:
        results: Any = unpack(head.results) if head.results else EMPTY
    except InvalidDocs as error:
        raise ExecutorError(f"the results cannot be read: {error}") from error
    return Result(docs, results, tuple(Step(*step) for step in head.trail))


def docs_of(frame: Frame, endpoint: Endpoint) -> Docs:
    """The docs of an answer, still encoded."""
    return codec(endpoint.output).encoded(frame.docs)


def _pack(what: str, value: Any) -> bytes:
    try:
        return pack(value)
    except JinaASGIError:
        raise
    except BaseException as error:
        raise InvalidRequest(
            f"{what} cannot cross to another process: expected plain data: {safe_str(error)}"
        ) from error


def _parts(docs: Docs, in_pieces: bool) -> Sequence[Buffer | Parts]:
    if in_pieces and docs.is_typed and not docs.is_encoded:
        parts: Sequence[Buffer | Parts] = docs.codec.encode_parts(docs.typed, in_pieces=True)
        return parts
    return docs.parts
