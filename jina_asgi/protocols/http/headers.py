"""Reads the headers of one request: length, media type, the answer's media type, and deadline.

Pure functions of raw header values, names in lower case.
"""

from __future__ import annotations

import functools
import math
import time
from email.message import Message

from jina_asgi.errors import InvalidRequest, TooLarge, UnsupportedMedia
from jina_asgi.protocols.http.bodies import JSON, MSGPACK, PROTOBUF, protobuf

RawHeaders = dict[bytes, bytes]

#: The media types of answers.
CONTENT_TYPES = {media: media.encode() for media in (JSON, MSGPACK, PROTOBUF)}
_MEDIA = {raw: media for media, raw in CONTENT_TYPES.items()}
#: The header with the seconds that the client waits.
TIMEOUT = b"x-request-timeout"
_MAX_TIMEOUT = 1e7
_MAX_DIGITS = 20


def length(headers: RawHeaders, limit: int) -> int:
    """The declared size of the body; 0 without one.

    Raises:
        InvalidRequest: it is not a number. TooLarge: it is over `limit`.
    """
    declared = headers.get(b"content-length")
    if declared is None:
        return 0
    if not declared.isdigit() or len(declared) > _MAX_DIGITS:
        raise InvalidRequest(f"expected content-length as a number, got {declared[:32]!r}")
    size = int(declared)
    if size > limit:
        raise too_large(limit)
    return size


def media_type(headers: RawHeaders) -> str:
    """The content type without parameters; "" without one.

    Raises:
        UnsupportedMedia: the body is encoded, or in another charset than UTF-8.
    """
    coding = headers.get(b"content-encoding", b"identity")
    if coding.strip().lower() != b"identity":
        raise UnsupportedMedia(f"expected no content-encoding, got {coding[:32]!r}; send the body as it is")
    declared = headers.get(b"content-type", b"")
    return _MEDIA.get(declared) or _parsed(declared)


@functools.lru_cache(maxsize=64)
def accepted(accept: bytes, media: str) -> str:
    """The media type that `Accept` prefers: JSON, msgpack or protobuf; else that of the request (JSON for a query).

    Other media types are not refused: HTTP lets a server ignore `Accept`.
    """
    weights = dict(_weight(item) for item in accept.decode("latin-1").lower().split(","))

    def wish(name: str) -> tuple[float, bool]:
        named = weights.get(name)
        return (weights.get("application/*", weights.get("*/*", 0.0)), False) if named is None else (named, True)

    own = media if media in CONTENT_TYPES else JSON
    best = max((other for other in CONTENT_TYPES if other != own), key=wish)
    if wish(best) <= max(wish(own), (0.0, True)):
        return own
    return best if best != PROTOBUF or _has_protobuf() else own


def _has_protobuf() -> bool:
    try:
        protobuf()
    except UnsupportedMedia:
        return False
    return True


@functools.lru_cache(maxsize=64)
def in_columns(accept: bytes) -> bool:
    """Whether msgpack is requested in columns: `application/msgpack; columns=true`."""
    return any(
        media.strip() == MSGPACK and "columns=true" in map(str.strip, parameters)
        for media, *parameters in (item.split(";") for item in accept.decode("latin-1").lower().split(","))
    )


def with_json(accept: bytes) -> bool:
    """Whether documents in msgpack should also have their JSON: `...; json=true`, for servers that pass them on."""
    return b"json=true" in accept


def in_packed(accept: bytes) -> bool:
    """Whether a stream's documents are requested as msgpack: `text/event-stream; data=msgpack`."""
    return b"data=msgpack" in accept and b"text/event-stream" in accept


def deadline(headers: RawHeaders) -> float | None:
    """The client's deadline, from `X-Request-Timeout` (seconds, a float).

    Raises:
        InvalidRequest: it is not a number, or negative.
    """
    declared = headers.get(TIMEOUT)
    if declared is None:
        return None
    try:
        seconds = float(declared)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise InvalidRequest(f"expected X-Request-Timeout in seconds, such as 2.5, got {declared[:32]!r}")
    return time.monotonic() + min(seconds, _MAX_TIMEOUT)


def too_large(limit: int) -> TooLarge:
    """The error for a body over the limit; it names the option that raises the limit."""
    return TooLarge(f"expected a body of at most {limit} bytes; the option `limits` of JinaASGI raises this")


@functools.lru_cache(maxsize=64)
def _parsed(declared: bytes) -> str:
    message = Message()
    message["content-type"] = declared.decode("latin-1")
    charset = str(message.get_param("charset", "utf-8")).lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMedia(f"expected charset utf-8, got {charset[:32]!r}")
    return message.get_content_type() if declared else ""


def _weight(item: str) -> tuple[str, float]:
    """A media range of `Accept` and its quality; 1 without one, and 0 if it is invalid."""
    media, *parameters = (part.strip() for part in item.split(";"))
    given = next((part[2:] for part in parameters if part.startswith("q=")), "1")
    try:
        return media, float(given)
    except ValueError:
        return media, 0.0
