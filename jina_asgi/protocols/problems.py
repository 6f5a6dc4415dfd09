"""Converts errors for clients: a safe message, a type, an id; the cause is in the log under that id."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException

from jina_asgi.errors import (
    DeadlineExceeded,
    ExecutorError,
    ExecutorHTTPError,
    InvalidDocs,
    InvalidRequest,
    JinaASGIError,
    ReplicaDied,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from jina_asgi.errors._raised import http_error, is_a, is_ours, loggable, public_class, sanitized
from jina_asgi.errors._shown import safe_str, truncated

logger = logging.getLogger("jina_asgi")

Headers = list[tuple[bytes, bytes]]
_INTERNAL = "internal error; the log has the cause under this error's id"
#: Added to the 503 of a call that may have taken effect, so that proxies and clients can avoid a retry.
EXECUTED = (b"x-jina-executed", b"maybe")
_MAX_WAIT = 3600.0
#: Errors that end an RPC of Jina's protocol without an answer, as nothing ran.
REFUSALS = (Unavailable, Unauthenticated, TooLarge, HTTPException)


class MethodNotAllowed(InvalidRequest):
    """The path exists, but not with this method."""

    status = 405

    def __init__(self, methods: Sequence[str]) -> None:
        super().__init__("Method Not Allowed")
        self.methods = methods


def problem(error: BaseException, *, expose: bool = False) -> tuple[int, dict[str, Any], Headers]:
    """The status, JSON body and headers for an error; an error that is not the client's fault is logged.

    Args:
        error: ours; Starlette's HTTPException (an `auth` hook may raise it); or a defect of this library or of a hook,
            which is shown as an internal error.
        expose: also show the message of an Executor's own exception, and the facts of an error (for development).
    """
    of_hook = is_a(error, HTTPException) and not is_ours(error)
    error = http_error(error) if of_hook else sanitized(error)
    identity = os.urandom(8).hex()
    status, name, message = _client_view(error, expose)
    if of_hook:
        name = "HTTPException"
    if isinstance(message, str):
        message = truncated(message)
    if status >= 500 and not isinstance(error, Unavailable | DeadlineExceeded):
        logger.error("error %s: %s", identity, _one_line(error), exc_info=loggable(error))
    retriable = isinstance(error, JinaASGIError) and error.retriable
    shown: dict[str, Any] = {"type": name, "id": identity, "retriable": retriable}
    if expose and isinstance(error, ExecutorError):
        shown["facts"] = dict(error.facts())
    if isinstance(error, ExecutorHTTPError) and error.headers:
        shown["headers"] = error.headers
    body = {"detail": message, "error": shown}
    return status, body, _headers(error)


def is_refusal(error: BaseException) -> bool:
    """Whether an error ends an RPC of Jina's protocol, and the client may retry: not if the call may have run."""
    return isinstance(error, REFUSALS) and not isinstance(error, ReplicaDied | ExecutorHTTPError)


def _client_view(error: BaseException, expose: bool) -> tuple[int, str, Any]:
    """The status, the type and the message (or FastAPI's list) that a client sees."""
    if isinstance(error, ExecutorHTTPError):
        return error.status, public_class(error), error.detail
    if not isinstance(error, JinaASGIError):
        return 500, "InternalError", _INTERNAL
    message: Any = error.message
    if isinstance(error, InvalidDocs) and error.errors:
        message = [_placed(entry) for entry in error.errors]
    elif error.status == 500 and not expose:
        message = error.public or _INTERNAL
    return error.status, public_class(error), message


def _placed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the place in the body to an error of parameters or docs that was not found by the protocol."""
    place = list(entry.get("loc", ()))
    if not place or place[0] not in ("body", "query"):
        place = ["body", *place] if place[:1] == ["parameters"] else ["body", "data", *place]
    return {**entry, "loc": place}


def _headers(error: BaseException) -> Headers:
    if isinstance(error, Unavailable):
        wait = min(max(error.retry_after, 0.0), _MAX_WAIT)
        seconds, milliseconds = max(1, math.ceil(wait)), math.ceil(wait * 1000)
        waits = [(b"retry-after", b"%d" % seconds), (b"retry-after-ms", b"%d" % milliseconds)]
        return [*waits, EXECUTED] if isinstance(error, ReplicaDied) else waits
    if isinstance(error, MethodNotAllowed):
        return [(b"allow", ", ".join(error.methods).encode())]
    if isinstance(error, Unauthenticated):
        return [(b"www-authenticate", b"Bearer")]
    if isinstance(error, ExecutorHTTPError):
        return [(name.encode(), value.encode("latin-1")) for name, value in (error.headers or {}).items()]
    return []


def encodable(text: str) -> str:
    """Makes a text valid UTF-8: an Executor's message may have half of a surrogate pair."""
    return text.encode(errors="backslashreplace").decode()


def _one_line(error: BaseException) -> str:
    """An error's message for the log: control characters escaped, so that no caller can write lines of its own."""
    message = safe_str(error)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)
