"""A client of HTTP/2 that frames what it likes: gRPC as it should be, or as it should not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Self

import hpack

from tests.faults.wire import Wire

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_LARGEST = 16_384  # of a frame, as long as nothing else is agreed on


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def message(raw: bytes, *, length: int | None = None, compressed: bool = False) -> bytes:
    """A message of gRPC's; `length` is what it says of itself, the truth if None."""
    return bytes([compressed]) + (len(raw) if length is None else length).to_bytes(4) + raw


def head(path: str, *more: tuple[str | bytes, str | bytes]) -> list[tuple[str | bytes, str | bytes]]:
    """The headers of a call."""
    pseudo: list[tuple[str | bytes, str | bytes]] = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
    ]
    return [*pseudo, ("te", "trailers"), ("content-type", "application/grpc"), *more]


def headers(
    stream: int, fields: list[tuple[str | bytes, str | bytes]], *, ends: bool = False, whole: bool = True
) -> bytes:
    """Headers, in as many frames as they need; without `whole` more are to come."""
    raw = hpack.Encoder().encode(fields, huffman=False)  # which takes minutes for a megabyte
    pieces = [raw[start : start + _LARGEST] for start in range(0, len(raw), _LARGEST)]
    made = b""
    for index, piece in enumerate(pieces):
        last = END_HEADERS if whole and index == len(pieces) - 1 else 0
        made += frame(CONTINUATION if index else HEADERS, last | (END_STREAM * ends if not index else 0), stream, piece)
    return made


@dataclass
class Heard:
    """What a server said."""

    frames: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    trailers: dict[int, dict[str, str]] = field(default_factory=dict)
    closed: bool = False

    @property
    def goaway(self) -> int | None:
        """The code of the last one."""
        codes = [int.from_bytes(payload[4:8]) for kind, _, _, payload in self.frames if kind == GOAWAY]
        return codes[-1] if codes else None

    @property
    def was_reset(self) -> bool:
        """Whether a call was."""
        return any(kind == RST_STREAM for kind, _, _, _ in self.frames)

    def status(self, stream: int = 1) -> str | None:
        """gRPC's status of a call, as it is sent."""
        return self.trailers.get(stream, {}).get("grpc-status")


class Http2:
    """One connection; used as `async with`. Settings have been told, and with `agrees` the server's are acknowledged."""

    def __init__(self, port: int, *, agrees: bool = True) -> None:
        self._agrees = agrees
        self._wire, self._decoder, self.heard = Wire(port), hpack.Decoder(), Heard()

    async def __aenter__(self) -> Self:
        await self._wire.__aenter__()
        await self._wire.send(PREFACE + frame(SETTINGS, 0, 0))
        async with asyncio.timeout(10.0):
            while self._agrees and not any(kind == SETTINGS for kind, _, _, _ in self.heard.frames):
                await self._next()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._wire.__aexit__(*raised)

    async def send(self, *frames: bytes) -> None:
        """What the server no longer wants to hear is of no matter."""
        try:
            async with asyncio.timeout(10.0):
                await self._wire.send(b"".join(frames))
        except (ConnectionError, TimeoutError):
            return

    async def hear(self, *, until: int | None = None, within: float = 10.0) -> Heard:
        """What is said until it closes, or until the call of a stream has a status or was reset."""
        try:
            async with asyncio.timeout(within):
                while until is None or not self._has_ended(until):
                    await self._next()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.heard.closed = True
        except TimeoutError:
            return self.heard
        return self.heard

    def _has_ended(self, stream: int) -> bool:
        reset = any(kind == RST_STREAM and at == stream for kind, _, at, _ in self.heard.frames)
        return reset or self.heard.status(stream) is not None

    async def _next(self) -> None:
        start = await self._wire.exactly(9)
        kind, flags, stream = start[3], start[4], int.from_bytes(start[5:9])
        payload = await self._wire.exactly(int.from_bytes(start[:3]))
        self.heard.frames.append((kind, flags, stream, payload))
        if kind == HEADERS:
            found = {str(name): str(value) for name, value in self._decoder.decode(payload)}
            self.heard.trailers.setdefault(stream, {}).update(found)
        elif kind == SETTINGS and self._agrees and not flags & ACK:
            await self.send(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            await self.send(frame(PING, ACK, 0, payload))
