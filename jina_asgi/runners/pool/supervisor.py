"""One replica's place in a pool: somebody is always in it, or on the way."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jina_asgi.concurrency.tasks import begun, beside, finished, logged
from jina_asgi.concurrency.timeouts import any_done
from jina_asgi.errors._shown import said
from jina_asgi.errors.load_failure import Failure
from jina_asgi.runners.pool._restarts import Restarts
from jina_asgi.types import Endpoint, Runner

logger = logging.getLogger("jina_asgi")


class Client(Runner, Protocol):
    """What a replica is asked through."""

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
        """Return once it has answered, or is gone."""
        ...


class Replica(Protocol):
    """What can be started, asked and ended, once each."""

    @property
    def name(self) -> str: ...
    @property
    def client(self) -> Client: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def device(self) -> str: ...

    async def start(self) -> None:
        """Return once it can be asked; raise, with nothing left behind, where it cannot come up."""
        ...

    async def ended(self) -> str:
        """Wait until it is gone; why."""
        ...

    async def leaves(self) -> None:
        """Wait until it asks to be replaced; what it has it will finish."""
        ...

    async def stop(self) -> None: ...
    async def kill(self, why: str) -> None: ...
    async def end_hung(self, why: str) -> None: ...
    def resident(self) -> int: ...


class Member:
    """A replica that has come up, and what it has to do.

    Attributes:
        busy: calls that take a thread, and streams, running or waiting there.
        calls: all calls there.
        answered: how many it has answered so far.
        large: it had more memory than it may have when it had just loaded: another would be no smaller.
        trouble: what it last said of its health, as far as others were told.
        doubtful: a call was given up there whose thread may not have returned; none has answered since.
    """

    __slots__ = ("answered", "busy", "calls", "doubtful", "idle", "large", "replica", "trouble")

    def __init__(self, replica: Replica, *, large: bool = False) -> None:
        self.replica, self.large = replica, large
        self.busy = self.calls = self.answered = 0
        self.trouble, self.doubtful = "", False
        self.idle = asyncio.Event()
        self.idle.set()

    @property
    def is_open(self) -> bool:
        return self.replica.client.is_open

    @property
    def load(self) -> tuple[bool, int, int]:
        """The smaller, the sooner it will get to another call."""
        return self.doubtful, self.busy, self.calls

    def take(self, endpoint: Endpoint) -> None:
        """One more call."""
        self.calls += 1
        self.busy += not endpoint.concurrent
        self.idle.clear()

    def answer(self, endpoint: Endpoint) -> None:
        """A call came to an end there."""
        self.answered += 1
        if not endpoint.concurrent:
            self.doubtful = False

    def doubt(self, endpoint: Endpoint) -> None:
        """A call was given up: the work of one that took a thread goes on, maybe for good."""
        if not endpoint.concurrent:
            self.doubtful = True

    def leave(self, endpoint: Endpoint) -> None:
        """One call less."""
        self.calls -= 1
        self.busy -= not endpoint.concurrent
        if not self.calls:
            self.idle.set()


class Seat:
    """Keeps a replica running: starts it, watches it, replaces it.

    Args:
        index: which of the pool's replicas.
        make: makes a replica that has not started.
        restarts: the pool's.
        heartbeat: seconds without an answer after which a replica counts as hung, and is killed.
        max_requests: calls after which it is replaced (0: never); each replica adds up to a tenth, so that they do
            not go together.
        max_rss: bytes of resident memory above which it is replaced (0: never); one that has more as soon as it has
            loaded is kept, and the log says so.
        grace: seconds that the calls of one that is replaced get.
        decisive: whether it is of no use to try again soon after an error of starting.
    """

    def __init__(
        self,
        index: int,
        make: Callable[[int], Replica],
        restarts: Restarts,
        *,
        heartbeat: float,
        max_requests: int = 0,
        max_rss: int = 0,
        grace: float = 30.0,
        decisive: Callable[[Exception], bool] = lambda _: False,
    ) -> None:
        self._decisive = decisive
        self.index, self._make, self._restarts = index, make, restarts
        self._heartbeat, self._max_rss, self._grace = heartbeat, max_rss, grace
        self._max_requests = round(max_requests * (1 + _dice() / 10))
        self.member: Member | None = None
        self.state, self.restarts = "stopped", 0
        self.failure: Failure | None = None
        self.changed: Callable[[], None] = lambda: None
        self._retiring: dict[asyncio.Task[None], Member] = {}
        self._not_before = 0.0  # the next try to replace one that is due
        self._stopping = False

    async def keep(self) -> None:
        """Have a replica in this seat until cancelled; whoever is in it then is killed."""
        self._stopping = False
        try:
            while True:
                try:
                    delay = await self._one_life()
                except Exception:
                    logger.exception("the place of replica %d failed, and is taken anew", self.index)
                    await self._emptied()
                    delay = self._restarts.failed(self.index, time.monotonic(), _dice())
                if self._stopping:
                    return
                self._become("waiting")
                await asyncio.sleep(delay)
                self.restarts += 1
        finally:
            self.state = "stopped"
            await self._emptied()

    async def _emptied(self) -> None:
        """Kill the one that is here, and those that were to finish what they have: theirs is waited for no more."""
        retiring = dict(self._retiring)
        members = [*retiring.values(), *([] if self.member is None else [self.member])]
        self.member = None
        try:
            await asyncio.gather(*(member.replica.kill("was stopped") for member in members), return_exceptions=True)
        finally:
            await finished(retiring)

    async def stop(self) -> None:
        """End the replica in this seat in good order; `keep` must be cancelled next."""
        self._stopping = True
        if self.member is not None:
            self._become("draining")
            await self.member.replica.stop()

    def status(self) -> dict[str, Any]:
        """The figures, for `/-/status`."""
        member = self.member
        ending = self.state == "ready" and member is not None and not member.is_open
        return {
            "state": "ending" if ending else self.state,
            "pid": None if member is None else member.replica.pid,
            "device": "" if member is None else member.replica.device,
            "in_flight": 0 if member is None else member.calls,
            "answered": 0 if member is None else member.answered,
            "restarts": self.restarts,
            "failure": None if self.failure is None else self.failure.status(),
        }

    async def _one_life(self) -> float:
        """From the start of one replica to its end; seconds to wait until the next is started."""
        self._become("loading")
        try:
            replica = self._make(self.index)
            await replica.start()
        except Exception as error:  # noqa: BLE001  # whatever loading raises; told to who asks, and logged
            if self._decisive(error):
                delay = self._restarts.give_up()
            else:
                delay = self._restarts.failed(self.index, time.monotonic(), _dice())
            what = f"replica {self.index} failed to start; next try in {delay:.1f} s"
            self.failure = Failure.logged(error, what, before=self.failure)
            return delay
        self.failure = None
        self.member = self._seated(replica)
        self._restarts.up()
        self._become("ready")
        while True:
            why = await self._watch(self.member)
            if not self.member.is_open:
                break
        member, self.member = self.member, None
        await member.replica.kill(why)
        if self._stopping:
            return 0.0
        if member.answered:
            delay = self._restarts.died(self.index, _dice())
        else:
            delay = self._restarts.failed(self.index, time.monotonic(), _dice())
        logger.error("%s %s; starting again in %.1f s", member.replica.name, why, delay)
        return delay

    def _seated(self, replica: Replica) -> Member:
        size = replica.resident() if self._max_rss else 0
        large = size > self._max_rss
        if large:
            logger.error(
                "%s has %d MB when it has just loaded, and max_rss is %d MB: it is not replaced for its memory; give more",
                replica.name, size // 10**6, self._max_rss // 10**6,
            )  # fmt: skip
        return Member(replica, large=large)

    async def _watch(self, member: Member) -> str:
        """Until this replica ends, and why; or until it was replaced by another."""
        replica = member.replica
        async with beside(replica.ended(), replica.leaves()) as (ending, leaving):
            while True:
                if not await self._answers(member):
                    await replica.end_hung(f"gave no sign of life for {self._heartbeat:g} s")
                    return str(await ending)
                news = [ending] if leaving.done() else [ending, leaving]
                await asyncio.wait(news, timeout=self._heartbeat / 2, return_when=asyncio.FIRST_COMPLETED)
                if ending.done():
                    return str(ending.result())
                if (leaving.done() or self._is_due(member)) and await self._replaced(member):
                    return "was replaced"

    async def _answers(self, member: Member) -> bool:
        client = member.replica.client
        async with beside(client.ping()) as asking:
            if not await any_done(asking, self._heartbeat):
                return False
        if client.unhealthy_reason != member.trouble:
            member.trouble = client.unhealthy_reason
            self.changed()
        return True

    async def _replaced(self, member: Member) -> bool:
        return time.monotonic() >= self._not_before and await self._replace(member)

    def _is_due(self, member: Member) -> bool:
        return bool(
            (self._max_requests and member.answered >= self._max_requests)
            or (self._max_rss and not member.large and member.replica.resident() > self._max_rss)
        )

    async def _replace(self, old: Member) -> bool:
        """Start another first, then let this one finish what it has."""
        try:
            replica = self._make(self.index)
            await replica.start()
        except Exception as error:  # noqa: BLE001  # whatever loading raises; the old one goes on
            self._not_before = time.monotonic() + 30.0
            logger.error("%s is due to be replaced, but the new one failed to start: %s", old.replica.name, said(error))
            return False
        self.member = self._seated(replica)
        self.restarts += 1
        self._become("ready")
        self._retiring[begun(self._retire(old), self._retired)] = old
        return True

    async def _retire(self, old: Member) -> None:
        try:
            async with asyncio.timeout(self._grace):
                await old.idle.wait()
        except TimeoutError:  # its death tells what had begun, and may not begin again, from what can move
            await old.replica.kill("took too long to finish")
        finally:
            await old.replica.stop()

    def _retired(self, task: asyncio.Task[None]) -> None:
        del self._retiring[task]
        logged("the end of a replica that was replaced")(task)

    def _become(self, state: str) -> None:
        self.state = state
        self.changed()


def _dice() -> float:
    """From 0 to 1, so that what happens to several does not happen at once."""
    return random.random()  # noqa: S311  # no secret
