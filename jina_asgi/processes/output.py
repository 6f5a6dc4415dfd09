"""Forwards a replica's output line by line with its name before each line, so that several processes do not mix."""

from __future__ import annotations

import asyncio
import re
import sys

_LONGEST = 8192  # bytes, after which a line is broken in two
_MAY_NEED_ESCAPE = re.compile(r"[^\t -~]+")  # characters that may have to be escaped


class Output(asyncio.Protocol):
    """Reads the output of one process until its end."""

    def __init__(self, name: str) -> None:
        self._name, self._rest = name, b""
        self.ended = asyncio.Event()
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    @property
    def is_connected(self) -> bool:
        """Whether reading has started, even if it has ended since."""
        return self._transport is not None

    def close(self) -> None:
        """Stops reading."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > _LONGEST:
            lines.append(self._rest[:_LONGEST])
            self._rest = self._rest[_LONGEST:]
        self._write(lines)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._rest:
            self._write([self._rest])
        self.ended.set()

    def _write(self, lines: list[bytes]) -> None:
        text = "".join(f"[{self._name}] {_printable(line)}\n" for line in lines)
        if text and sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()


def _printable(line: bytes) -> str:
    """Decodes a line and escapes control characters, which could forge or hide other lines."""
    return _MAY_NEED_ESCAPE.sub(_escaped, line.rstrip(b"\r").decode(errors="backslashreplace"))


def _escaped(found: re.Match[str]) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in found[0])
