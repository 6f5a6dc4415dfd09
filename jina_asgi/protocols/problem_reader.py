"""Turns a server's error response back into our error: the client half of `problems`.

Our servers name the error's class; for others the status decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from jina_asgi.errors import (
    DeadlineExceeded,
    ExecutorError,
    ExecutorHTTPError,
    InvalidDocs,
    InvalidRequest,
    JinaASGIError,
    Overloaded,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnknownEndpoint,
    UnsupportedMedia,
)
from jina_asgi.errors._error_lists import number_of
from jina_asgi.protocols.frames._heads import error_by_name

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
    return error_in(status, body, retry_after=_retry_after(headers))


def error_in(status: int, body: Mapping[str, Any], *, retry_after: float = 1.0) -> JinaASGIError:
    """The error in a parsed body, of an answer or of the last event of a stream."""
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
