"""Reads server-sent events from a streamed response."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, NamedTuple

import httpx
import orjson

_END = re.compile(rb"\r\n|\n|\r(?!\Z)")  # a CR at the end of a chunk may be half of a CRLF


class Event(NamedTuple):
    """One event: its name, and its parsed JSON data."""

    name: str
    data: Any


async def events(response: httpx.Response) -> AsyncGenerator[Event, None]:
    """Yields the events of a response as they arrive, without comments and incomplete events.

    Raises:
        ValueError: data is not JSON.
    """
    name, data = "message", list[str]()
    async with aclosing(_lines(response)) as lines:
        async for line in lines:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                if data or name != "message":
                    yield Event(name, orjson.loads("\n".join(data)) if data else None)
                name, data = "message", []
            elif field == "event":
                name = value
            elif field == "data":
                data.append(value)


async def _lines(response: httpx.Response) -> AsyncGenerator[str, None]:
    """Splits lines at CRLF, LF or CR only: httpx splits at U+2028 and others too, which tokens may contain."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = _END.split(rest + chunk)
        for line in lines:
            yield line.decode()
    if rest.endswith(b"\r"):
        yield rest[:-1].decode()
