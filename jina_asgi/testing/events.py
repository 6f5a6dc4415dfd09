"""Reads server-sent events from a streamed response."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import httpx
import orjson


class Event(NamedTuple):
    """One event: its name, and its data, parsed where it is JSON."""

    name: str
    data: Any


async def events(response: httpx.Response) -> AsyncIterator[Event]:
    """The events of a response, as they arrive; comments are skipped.

    Raises:
        ValueError: data that is no JSON.
    """
    name, data = "message", list[str]()
    async for line in response.aiter_lines():
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
