"""The server's side of one RPC: its headers, its deadline, and the status code of its failure.

An Executor's error is an answer, as in Jina. A status code says why a request was not run: a client may retry after
UNAVAILABLE, and a Jina gateway does. It does so after INTERNAL too, which is therefore never sent.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
import re
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import grpc

from jina_asgi.errors import JinaASGIError, Unavailable
from jina_asgi.protocols.service import CallerInfo, Service

_NAME, _TEXT = re.compile(r"[0-9a-z_.-]+"), re.compile(r"[ -~]*")
#: The allowed headers, for messages.
EXPECTED = "names of letters, digits, '-', '_' and '.', and values of ASCII, or of base64 where the name ends in '-bin'"


def metadata_of(headers: Mapping[str, str]) -> tuple[tuple[tuple[str, str | bytes], ...], list[str]]:
    """Headers as metadata, and the names of those that it does not allow."""
    found: list[tuple[str, str | bytes]] = []
    unfit: list[str] = []
    for key, text in headers.items():
        name = key.lower()
        value = _value(name, text)
        if value is None:
            unfit.append(key)
        else:
            found.append((name, value))
    return tuple(found), unfit


def _value(name: str, text: str) -> str | bytes | None:
    if not _NAME.fullmatch(name):
        return None
    if not name.endswith("-bin"):  # "grpc-..." are gRPC's own headers
        return text if _TEXT.fullmatch(text) and not name.startswith("grpc-") else None
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


_BY_STATUS = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


async def refuse(context: Any, error: Exception, service: Service) -> NoReturn:
    """End an RPC with the status code of an error; log it if it is not the client's fault.

    Raises:
        CancelledError: the client has left, which grpc.aio notices a moment later by itself.
    """
    if isinstance(error, grpc.aio.InternalError):  # raised by `write`
        raise asyncio.CancelledError from error
    status, body, _ = service.problem(error)
    detail, facts = body["detail"], body["error"]
    trailers = [("jina-asgi-error", facts["type"]), ("jina-asgi-error-id", facts["id"])]
    if isinstance(error, Unavailable):
        wait = math.ceil(min(max(error.retry_after, 0.0), 3600.0) * 1000)
        trailers += [("retry-after-ms", str(wait)), ("grpc-retry-pushback-ms", str(wait))]
    code = _BY_STATUS.get(status, grpc.StatusCode.FAILED_PRECONDITION)
    if isinstance(error, JinaASGIError):
        code = grpc.StatusCode[error.grpc_code]
    if code is grpc.StatusCode.INTERNAL:
        code = grpc.StatusCode.UNKNOWN
    try:
        await context.abort(code, detail if isinstance(detail, str) else str(detail), tuple(trailers))
    except grpc.aio.InternalError as lost:
        raise asyncio.CancelledError from lost
    raise AssertionError("abort has raised")


def headers_of(context: Any) -> dict[str, str]:
    """The metadata of an RPC as headers: names in lower case, repeated names joined, binary values in base64."""
    metadata = context.invocation_metadata() or ()
    headers: dict[str, str] = dict(metadata)
    if len(headers) == len(metadata) and bytes not in map(type, headers.values()):  # as most are
        return headers
    headers = {}
    for key, value in metadata:
        text = value if isinstance(value, str) else base64.b64encode(value).decode()
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def caller_of(context: Any, method: str) -> CallerInfo:
    """The caller of an RPC: its metadata, and how long it waits. `method` is "service/method"."""
    left = context.time_remaining()
    return CallerInfo(headers_of(context), None if left is None else time.monotonic() + left, None, method)
