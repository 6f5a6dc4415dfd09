"""One HTTP exchange: reads the whole body, sends the answer, and handles a client that leaves in between."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.types import Receive, Send

from jina_asgi.errors._shown import safe_repr
from jina_asgi.protocols.http.disconnects import Watched
from jina_asgi.protocols.http.headers import too_large

#: Bytes of a body that are sent in one message.
_PIECE = 2**20


class ClientGone(Exception):  # an event, and no error
    """The client left while its request was being read."""


class ResponseWriter:
    """One response: ASGI's `send`, whether it has started, and the monitor's entry for its client."""

    __slots__ = ("send", "started", "watched")

    def __init__(self, send: Send) -> None:
        self.send, self.started = send, False
        self.watched: Watched | None = None

    def ends(self) -> None:
        """Called before the last message: a client that leaves from now on has its answer."""
        if self.watched is not None:
            self.watched.answered = True

    async def message(self, message: Any) -> None:
        """Send one message of the response.

        Raises:
            ClientGone: the server reports it here.
        """
        self.started = True
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.ends()
        try:
            await self.send(message)
        except OSError:
            raise ClientGone from None

    async def whole(self, status: int, body: bytes, content_type: bytes) -> None:
        """Send the whole response, a large body in pieces; raises as `message` does.

        A server copies what it is given at once; it waits between pieces until the client has read enough of them.
        """
        self.started = True
        headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
        try:
            await self.send({"type": "http.response.start", "status": status, "headers": headers})
            start = 0
            while len(body) - start > _PIECE:
                piece = body[start : start + _PIECE]
                await self.send({"type": "http.response.body", "body": piece, "more_body": True})
                start += _PIECE
            if self.watched is not None:
                self.watched.answered = True
            await self.send({"type": "http.response.body", "body": body[start:]})
        except OSError:
            raise ClientGone from None


async def send_json(send: Send, status: int, body: Any, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Answer with JSON."""
    raw = orjson.dumps(body, default=safe_repr)
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode()), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": raw})


async def read_body(receive: Receive, limit: int) -> bytes:
    """Reads the whole body.

    Raises:
        TooLarge: it is over `limit` bytes; the rest is not read. ClientGone: the client left meanwhile.
    """
    message = await receive()
    if message["type"] != "http.request":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > limit:
            raise too_large(limit)
        return body
    chunks, size = [body], len(body)
    while message.get("more_body", False):
        if size > limit:
            raise too_large(limit)
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
    if size > limit:
        raise too_large(limit)
    return b"".join(chunks)
