"""A client that writes what it likes on a connection, and one that asks as it should, beside it."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import secrets
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import AsyncGeneratorType
from typing import Self

import httpx
import orjson


class Wire:
    """One raw connection to a server on this machine; used as `async with`."""

    def __init__(self, port: int, *, receive_buffer: int = 0) -> None:
        self._port, self._receive_buffer = port, receive_buffer

    async def __aenter__(self) -> Self:
        sock = socket.socket()
        if self._receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        self._reader, self._writer = await asyncio.open_connection(sock=sock, limit=2**16)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def until(self, separator: bytes) -> bytes:
        async with asyncio.timeout(10.0):
            return await self._reader.readuntil(separator)

    async def head(self) -> bytes:
        """The answer's status line and headers."""
        return await self.until(b"\r\n\r\n")

    async def exactly(self, count: int) -> bytes:
        return await self._reader.readexactly(count)

    async def rest(self) -> bytes:
        """What comes until the server closes."""
        async with asyncio.timeout(10.0):
            return await self._reader.read()

    def end_of_sending(self) -> None:
        self._writer.write_eof()

    def reset(self) -> None:
        """Leave as a machine does that fails: by RST, with nothing said."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


def post(path: str, body: bytes = b"", *headers: str, length: str | None = None) -> bytes:
    """A request by POST; `length` is what it says of its body, the truth if None."""
    lines = [f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", *headers]
    if not any(header.startswith("transfer-encoding") for header in headers):
        lines.append(f"content-length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunks(body: bytes, size: int) -> bytes:
    """A body in chunks of so many bytes."""
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@dataclass
class Ledger:
    """What became of the calls of those who asked as they should."""

    right: int = 0
    others: list[str] = field(default_factory=list)


@asynccontextmanager
async def neighbours(port: int, path: str, *, count: int = 4) -> AsyncIterator[Ledger]:
    """Clients that ask for `path`, which echoes a doc's text, all the while; each answer must be its own."""
    ledger, over = Ledger(), asyncio.Event()

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20.0) as http:
            while not over.is_set():
                nonce = secrets.token_hex(8)
                answer = await http.post(path, content=orjson.dumps({"data": {"text": nonce}}), headers=JSON)
                if answer.status_code == 200 and [doc["text"] for doc in answer.json()["data"]] == [nonce]:
                    ledger.right += 1
                else:
                    ledger.others.append(f"{answer.status_code} {answer.text[:200]}")

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(ask())
        try:
            yield ledger
        finally:
            over.set()


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Residue:
    """What this process holds; suspended generators by their qualified names."""

    descriptors: int
    tasks: int
    generators: Counter[str]

    @classmethod
    def now(cls) -> Self:
        gc.collect()
        names = Counter(found.__qualname__ for found in _generators())
        return cls(len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks()), names)

    @classmethod
    async def settles(cls, expected: Self, *, within: float = 10.0) -> None:
        """Wait until no more is held than was: connections end a moment after their clients."""
        try:
            async with asyncio.timeout(within):
                while not cls.now()._is_within(expected):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"left behind: {cls.now()}, before: {expected}; {_holders()}") from None

    def _is_within(self, other: Residue) -> bool:
        few = self.descriptors <= other.descriptors and self.tasks <= other.tasks
        return few and self.generators.total() <= other.generators.total()


def _generators() -> list[AsyncGeneratorType[object, object]]:
    return [found for found in gc.get_objects() if type(found) is AsyncGeneratorType]


def _holders() -> dict[str, set[str]]:
    """The types of what refers to each generator, by its name."""
    holders: dict[str, set[str]] = {}
    for found in _generators():
        holders.setdefault(found.__qualname__, set()).update(type(one).__name__ for one in gc.get_referrers(found))
    return holders
