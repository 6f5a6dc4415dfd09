"""Converts errors for clients: a safe message, a type, an id; the cause is in the log under that id.

Turns a server's error response back into our error: the client half of `problems`.

Our servers name the error's class; for others the status decides.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.exceptions import HTTPException

from jina_asgi.errors import (
    DeadlineExceeded,
    ExecutorError,
    ExecutorHTTPError,
    InvalidDocs,
    InvalidRequest,
    JinaASGIError,
    Overloaded,
    ReplicaDied,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnknownEndpoint,
    UnsupportedMedia,
)
from jina_asgi.errors._raised import http_error, is_a, is_ours, loggable, public_class, sanitized
from jina_asgi.errors._shown import number_of, safe_repr, safe_str, truncated
from jina_asgi.protocols.frames._heads import error_by_name

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


def as_json(value: Any) -> bytes:
    """The JSON of a problem, or of a server's description, whose values may be an Executor's own."""
    return orjson.dumps(value, default=safe_repr)


def in_one_object(status: int, body: Mapping[str, Any], headers: Headers) -> dict[str, Any]:
    """What `problem` returns as one object, for answers without a status and headers; `error_in` reads it."""
    wait = dict(headers).get(b"retry-after-ms")
    return {"status": status, **body} if wait is None else {"status": status, **body, "retry_after": int(wait) / 1000}


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


_BY_STATUS: Mapping[int, type[JinaASGIError]] = {
    401: Unauthenticated,
    403: Unauthenticated,
    404: UnknownEndpoint,
    405: UnknownEndpoint,
    413: TooLarge,
    415: UnsupportedMedia,
    422: InvalidDocs,
    429: Overloaded,
    502: Unavailable,
    503: Unavailable,
    504: DeadlineExceeded,
}
_SHOWN = 500


def error_of(status: int, headers: Mapping[str, str], raw: bytes) -> JinaASGIError:
    """The error of a response; names of `headers` in lower case."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        body = {"detail": raw[:_SHOWN].decode("utf-8", "replace") or f"HTTP status {status}"}
    return error_in({**body, "status": status, "retry_after": _retry_after(headers)})


def error_in(body: Mapping[str, Any]) -> JinaASGIError:
    """The error in one object, as `in_one_object` makes it; another server may leave out any part, or send nonsense."""
    status, retry_after = body.get("status"), body.get("retry_after")
    status = status if isinstance(status, int) else 500
    retry_after = float(retry_after) if isinstance(retry_after, int | float) else 1.0
    error, detail = body.get("error"), body.get("detail", f"HTTP status {status}")
    entries = [_unplaced(entry) for entry in detail if isinstance(entry, dict)] if isinstance(detail, list) else []
    message = _sentence(entries) if entries else str(detail)
    facts: dict[str, Any] = {}
    if isinstance(error, dict) and isinstance(error.get("type"), str):
        given = error.get("facts")
        facts = dict(given) if isinstance(given, dict) else {}
        if status == 503:
            facts["retry_after"] = retry_after
        if entries:
            facts["errors"] = entries
        if error["type"] == ExecutorHTTPError.__name__:
            facts = {"status": status, "detail": detail, "headers": error.get("headers")}
        found = error_by_name(error["type"], message, facts)
        if found is not None:
            return found
    kind = _BY_STATUS.get(status, InvalidRequest if status < 500 else ExecutorError)
    if issubclass(kind, Unavailable):
        return kind(message, retry_after=retry_after)
    return InvalidDocs(message, entries) if kind is InvalidDocs else kind(message)


def _unplaced(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of FastAPI's list, with its place relative to the docs or the parameters."""
    place = entry.get("loc")
    place = list(place) if isinstance(place, Sequence) and not isinstance(place, str) else []
    if place[:1] in (["body"], ["query"]):
        place = place[1:]
    if place[:1] == ["data"]:
        place = place[1:] if len(place) < 2 or isinstance(place[1], int) else place[2:]
    return {**entry, "loc": place}


def _sentence(entries: Sequence[Mapping[str, Any]]) -> str:
    first = entries[0]
    where = ".".join(map(str, first["loc"])) or "the body"
    count = number_of(entries)
    more = f" (and {count - 1} more)" if count > 1 else ""
    return f"{where}: {first.get('msg', 'refused')}{more}"


def _retry_after(headers: Mapping[str, str]) -> float:
    """The seconds until a retry: our exact header, else whole seconds, else 1 (dates are ignored)."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return 1.0
