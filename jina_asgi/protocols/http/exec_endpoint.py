"""Finds the endpoint in the body of `POST /post`, before the rest is parsed."""

from __future__ import annotations

import msgspec

from jina_asgi.documents.msgpack import unpack
from jina_asgi.errors import InvalidRequest
from jina_asgi.protocols.http.bodies import loads_any, protobuf, unsupported
from jina_asgi.protocols.size_guard import JSON, MSGPACK, PROTOBUF


class _WithEndpoint(msgspec.Struct):
    """A body of which only the endpoint is parsed; its other values become no objects."""

    exec_endpoint: msgspec.Raw = msgspec.Raw(b"null")


_named_in_json = msgspec.json.Decoder(_WithEndpoint).decode
_named_in_msgpack = msgspec.msgpack.Decoder(_WithEndpoint).decode


def exec_endpoint(media: str, raw: bytes, *, heavy: bool = False) -> str:
    """The endpoint in the body of `POST /post`; of a `heavy` body nothing else is parsed.

    Raises:
        InvalidRequest, UnsupportedMedia: as `Bodies.read`.
    """
    if media == PROTOBUF:
        requests = protobuf()
        found: str = requests.fields_of(requests.read(raw)).endpoint
        return found
    if media not in (JSON, MSGPACK):
        raise unsupported(media)
    if not heavy:
        body = loads_any(raw) if media == JSON else unpack(raw)
        given = body.get("exec_endpoint") if isinstance(body, dict) else None
        return given if isinstance(given, str) else "/default"
    try:
        if media == JSON:
            return msgspec.json.decode(_named_in_json(raw).exec_endpoint, type=str)
        return msgspec.msgpack.decode(_named_in_msgpack(raw).exec_endpoint, type=str)
    except msgspec.ValidationError:  # not an object, or without a name
        return "/default"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not {media}: {error}") from None
