"""One RPC from its server's side: who asks, until when, and what ends it with a code of gRPC's.

An answer that tells of an error is a message, as Jina has it. A code is for what kept a request from being run: who
gets UNAVAILABLE may ask again, and a Jina gateway does. It does so after INTERNAL too, so that this is never told.
"""

from __future__ import annotations

import base64
import math
import time
from typing import Any, NoReturn

import grpc

from jina_asgi.errors import JinaASGIError, Unavailable
from jina_asgi.protocols.problems import problem

_BY_STATUS = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


async def refuse(context: Any, error: Exception, *, expose: bool) -> NoReturn:
    """End an RPC with the code of an error; what is not the client's fault is logged."""
    status, body, _ = problem(error, expose=expose)
    detail = body["detail"]
    told = body["error"]
    trailers = [("jina-asgi-error", told["type"]), ("jina-asgi-error-id", told["id"])]
    if isinstance(error, Unavailable):
        wait = math.ceil(min(max(error.retry_after, 0.0), 3600.0) * 1000)
        trailers += [("retry-after-ms", str(wait)), ("grpc-retry-pushback-ms", str(wait))]
    code = _BY_STATUS.get(status, grpc.StatusCode.FAILED_PRECONDITION)
    if isinstance(error, JinaASGIError):
        code = grpc.StatusCode[error.grpc_code]
    if code is grpc.StatusCode.INTERNAL:
        code = grpc.StatusCode.UNKNOWN
    await context.abort(code, detail if isinstance(detail, str) else str(detail), tuple(trailers))
    raise AssertionError("abort has raised")


def headers_of(context: Any) -> dict[str, str]:
    """The metadata of an RPC as headers: names in lower case, several of a name in one; what is binary in base64."""
    metadata = context.invocation_metadata() or ()
    headers: dict[str, str] = dict(metadata)
    if len(headers) == len(metadata) and bytes not in map(type, headers.values()):  # as most are
        return headers
    headers = {}
    for key, value in metadata:
        text = value if isinstance(value, str) else base64.b64encode(value).decode()
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def deadline_of(context: Any) -> float | None:
    """The moment until which the client waits, on `time.monotonic`'s clock."""
    left = context.time_remaining()
    return None if left is None else time.monotonic() + left
