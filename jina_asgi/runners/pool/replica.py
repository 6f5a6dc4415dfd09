"""A replica as its pool sees it: how it is started, called and stopped, and how loaded it is."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

from jina_asgi.types import Endpoint, Runner


class ReplicaClient(Runner, Protocol):
    """The client of a replica; implemented by `protocols.frames.client`, which no Runner imports."""

    @property
    def is_open(self) -> bool:
        """Whether it takes calls."""
        ...

    @property
    def unhealthy_reason(self) -> str:
        """Why it cannot answer calls at the moment; empty when it can."""
        ...

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Its metrics, for `/-/status`."""
        ...

    async def ping(self) -> None:
        """Return once the replica has answered, or is gone."""
        ...


class Replica(ABC):
    """A process, or another Runner, that answers a pool's calls; started once and stopped once.

    Attributes:
        client: sends it calls.
        pid, device: of its process, for `/-/status`, where it is one of ours.
    """

    client: ReplicaClient
    pid: int | None = None
    device = ""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    async def start(self) -> None:
        """Return once it accepts calls; raise if it cannot start, after cleaning up."""

    @abstractmethod
    async def ended(self) -> str:
        """Wait until it is gone; return the reason."""

    @abstractmethod
    async def stop(self) -> None:
        """End it gracefully."""

    @abstractmethod
    async def kill(self, why: str) -> None:
        """End it at once."""

    async def leaves(self) -> None:
        """Wait until it asks to be replaced, as none does by default; its running calls will finish."""
        await asyncio.Event().wait()

    async def end_hung(self, why: str) -> None:
        """End it, as it gives no sign of life."""
        await self.kill(why)

    def resident(self) -> int:
        """Return its resident memory in bytes; 0 if it is not known."""
        return 0


class ReplicaHandle:
    """A running replica and its load.

    Attributes:
        busy: its calls that take a thread, and streams, running or waiting.
        calls: all its calls.
        answered: how many calls it has answered so far.
        over_limit_at_load: it exceeded `max_rss` when it had just loaded: a replacement would, too.
        unhealthy_reason: the reason last published by `on_change`; '' if healthy.
        doubtful: a call was cancelled there whose thread may be stuck; none has answered since.
    """

    __slots__ = (
        "answered",
        "busy",
        "calls",
        "client",
        "doubtful",
        "is_idle",
        "over_limit_at_load",
        "replica",
        "unhealthy_reason",
    )

    def __init__(self, replica: Replica, *, over_limit_at_load: bool = False) -> None:
        self.replica, self.client, self.over_limit_at_load = replica, replica.client, over_limit_at_load
        self.busy = self.calls = self.answered = 0
        self.unhealthy_reason, self.doubtful = "", False
        self.is_idle = asyncio.Event()
        self.is_idle.set()

    @property
    def load(self) -> tuple[bool, int, int]:
        """The sort key of the replica's load; the smallest gets the next call."""
        return self.doubtful, self.busy, self.calls

    def begin_call(self, endpoint: Endpoint) -> None:
        """Count a call."""
        self.calls += 1
        self.busy += not endpoint.concurrent
        self.is_idle.clear()

    def record_answer(self, endpoint: Endpoint) -> None:
        """Count an answered call."""
        self.answered += 1
        if not endpoint.concurrent:
            self.doubtful = False

    def mark_doubtful(self, endpoint: Endpoint) -> None:
        """Record an abandoned call, whose thread may be stuck."""
        if not endpoint.concurrent:
            self.doubtful = True

    def end_call(self, endpoint: Endpoint) -> None:
        """Count the end of a call."""
        self.calls -= 1
        self.busy -= not endpoint.concurrent
        if not self.calls:
            self.is_idle.set()
