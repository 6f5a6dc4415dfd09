"""One replica's place in a pool: somebody is always in it, or on the way."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jina_asgi.concurrency.tasks import cancel_and_wait, concurrent_tasks, log_failure, start_task
from jina_asgi.concurrency.timeouts import any_done
from jina_asgi.errors._shown import safe_str
from jina_asgi.errors.load_failure import LoadFailure
from jina_asgi.runners.pool._restarts import Restarts
from jina_asgi.types import Endpoint, Runner

logger = logging.getLogger("jina_asgi")


class ReplicaClient(Runner, Protocol):
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
    def client(self) -> ReplicaClient: ...
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


class ReplicaHandle:
    """A replica that has come up, and what it has to do.

    Attributes:
        busy: calls that take a thread, and streams, running or waiting there.
        calls: all calls there.
        answered: how many it has answered so far.
        large: it had more memory than it may have when it had just loaded: another would be no smaller.
        trouble: what it last said of its health, as far as others were told.
        doubtful: a call was given up there whose thread may not have returned; none has answered since.
    """

    __slots__ = (
        "answered",
        "busy",
        "calls",
        "doubtful",
        "is_idle",
        "over_limit_at_load",
        "replica",
        "unhealthy_reason",
    )

    def __init__(self, replica: Replica, *, over_limit_at_load: bool = False) -> None:
        self.replica, self.over_limit_at_load = replica, over_limit_at_load
        self.busy = self.calls = self.answered = 0
        self.unhealthy_reason, self.doubtful = "", False
        self.is_idle = asyncio.Event()
        self.is_idle.set()

    @property
    def is_open(self) -> bool:
        return self.replica.client.is_open

    @property
    def load(self) -> tuple[bool, int, int]:
        """The smaller, the sooner it will get to another call."""
        return self.doubtful, self.busy, self.calls

    def begin_call(self, endpoint: Endpoint) -> None:
        """One more call."""
        self.calls += 1
        self.busy += not endpoint.concurrent
        self.is_idle.clear()

    def record_answer(self, endpoint: Endpoint) -> None:
        """A call came to an end there."""
        self.answered += 1
        if not endpoint.concurrent:
            self.doubtful = False

    def mark_doubtful(self, endpoint: Endpoint) -> None:
        """A call was given up: the work of one that took a thread goes on, maybe for good."""
        if not endpoint.concurrent:
            self.doubtful = True

    def end_call(self, endpoint: Endpoint) -> None:
        """One call less."""
        self.calls -= 1
        self.busy -= not endpoint.concurrent
        if not self.calls:
            self.is_idle.set()


class ReplicaSupervisor:
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
        is_permanent: Callable[[Exception], bool] = lambda _: False,
    ) -> None:
        self._is_permanent = is_permanent
        self.index, self._make, self._restarts = index, make, restarts
        self._heartbeat, self._max_rss, self._grace = heartbeat, max_rss, grace
        self._max_requests = round(max_requests * (1 + _jitter() / 10))
        self.handle: ReplicaHandle | None = None
        self.state, self.restarts = "stopped", 0
        self.failure: LoadFailure | None = None
        self.on_change: Callable[[], None] = lambda: None
        self._retiring: dict[asyncio.Task[None], ReplicaHandle] = {}
        self._not_before = 0.0  # the next try to replace one that is due
        self._stopping = False

    async def supervise(self) -> None:
        """Have a replica in this seat until cancelled; whoever is in it then is killed."""
        self._stopping = False
        try:
            while True:
                try:
                    delay = await self._run_one_replica()
                except Exception:
                    logger.exception("the place of replica %d failed, and is taken anew", self.index)
                    await self._kill_all()
                    delay = self._restarts.failed(self.index, time.monotonic(), _jitter())
                if self._stopping:
                    return
                self._set_state("waiting")
                await asyncio.sleep(delay)
                self.restarts += 1
        finally:
            self.state = "stopped"
            await self._kill_all()

    async def _kill_all(self) -> None:
        """Kill the one that is here, and those that were to finish what they have: theirs is waited for no more."""
        retiring = dict(self._retiring)
        handles = [*retiring.values(), *([] if self.handle is None else [self.handle])]
        self.handle = None
        try:
            await asyncio.gather(*(handle.replica.kill("was stopped") for handle in handles), return_exceptions=True)
        finally:
            await cancel_and_wait(retiring)

    async def stop(self) -> None:
        """End the replica in this seat in good order; `keep` must be cancelled next."""
        self._stopping = True
        if self.handle is not None:
            self._set_state("draining")
            await self.handle.replica.stop()

    def status(self) -> dict[str, Any]:
        """The figures, for `/-/status`."""
        handle = self.handle
        ending = self.state == "ready" and handle is not None and not handle.is_open
        return {
            "state": "ending" if ending else self.state,
            "pid": None if handle is None else handle.replica.pid,
            "device": "" if handle is None else handle.replica.device,
            "in_flight": 0 if handle is None else handle.calls,
            "answered": 0 if handle is None else handle.answered,
            "restarts": self.restarts,
            "failure": None if self.failure is None else self.failure.status(),
        }

    async def _run_one_replica(self) -> float:
        """From the start of one replica to its end; seconds to wait until the next is started."""
        self._set_state("loading")
        try:
            replica = self._make(self.index)
            await replica.start()
        except Exception as error:  # noqa: BLE001  # whatever loading raises; told to who asks, and logged
            if self._is_permanent(error):
                delay = self._restarts.give_up()
            else:
                delay = self._restarts.failed(self.index, time.monotonic(), _jitter())
            what = f"replica {self.index} failed to start; next try in {delay:.1f} s"
            self.failure = LoadFailure.logged(error, what, before=self.failure)
            return delay
        self.failure = None
        self.handle = self._handle_for(replica)
        self._restarts.up()
        self._set_state("ready")
        while True:
            why = await self._watch_until_end(self.handle)
            if not self.handle.is_open:
                break
        handle, self.handle = self.handle, None
        await handle.replica.kill(why)
        if self._stopping:
            return 0.0
        if handle.answered:
            delay = self._restarts.died(self.index, _jitter())
        else:
            delay = self._restarts.failed(self.index, time.monotonic(), _jitter())
        logger.error("%s %s; starting again in %.1f s", handle.replica.name, why, delay)
        return delay

    def _handle_for(self, replica: Replica) -> ReplicaHandle:
        size = replica.resident() if self._max_rss else 0
        over_limit = size > self._max_rss
        if over_limit:
            logger.error(
                "%s has %d MB when it has just loaded, and max_rss is %d MB: it is not replaced for its memory; give more",
                replica.name, size // 10**6, self._max_rss // 10**6,
            )  # fmt: skip
        return ReplicaHandle(replica, over_limit_at_load=over_limit)

    async def _watch_until_end(self, handle: ReplicaHandle) -> str:
        """Until this replica ends, and why; or until it was replaced by another."""
        replica = handle.replica
        async with concurrent_tasks(replica.ended(), replica.leaves()) as (ending, leaving):
            while True:
                if not await self._answers(handle):
                    await replica.end_hung(f"gave no sign of life for {self._heartbeat:g} s")
                    return str(await ending)
                news = [ending] if leaving.done() else [ending, leaving]
                await asyncio.wait(news, timeout=self._heartbeat / 2, return_when=asyncio.FIRST_COMPLETED)
                if ending.done():
                    return str(ending.result())
                if (leaving.done() or self._is_due(handle)) and await self._try_replace(handle):
                    return "was replaced"

    async def _answers(self, handle: ReplicaHandle) -> bool:
        client = handle.replica.client
        async with concurrent_tasks(client.ping()) as asking:
            if not await any_done(asking, self._heartbeat):
                return False
        if client.unhealthy_reason != handle.unhealthy_reason:
            handle.unhealthy_reason = client.unhealthy_reason
            self.on_change()
        return True

    async def _try_replace(self, handle: ReplicaHandle) -> bool:
        return time.monotonic() >= self._not_before and await self._replace(handle)

    def _is_due(self, handle: ReplicaHandle) -> bool:
        return bool(
            (self._max_requests and handle.answered >= self._max_requests)
            or (self._max_rss and not handle.over_limit_at_load and handle.replica.resident() > self._max_rss)
        )

    async def _replace(self, old: ReplicaHandle) -> bool:
        """Start another first, then let this one finish what it has."""
        try:
            replica = self._make(self.index)
            await replica.start()
        except Exception as error:  # noqa: BLE001  # whatever loading raises; the old one goes on
            self._not_before = time.monotonic() + 30.0
            logger.error(
                "%s is due to be replaced, but the new one failed to start: %s", old.replica.name, safe_str(error)
            )
            return False
        self.handle = self._handle_for(replica)
        self.restarts += 1
        self._set_state("ready")
        self._retiring[start_task(self._retire(old), self._retired)] = old
        return True

    async def _retire(self, old: ReplicaHandle) -> None:
        try:
            async with asyncio.timeout(self._grace):
                await old.is_idle.wait()
        except TimeoutError:  # its death tells what had begun, and may not begin again, from what can move
            await old.replica.kill("took too long to finish")
        finally:
            await old.replica.stop()

    def _retired(self, task: asyncio.Task[None]) -> None:
        del self._retiring[task]
        log_failure("the end of a replica that was replaced")(task)

    def _set_state(self, state: str) -> None:
        self.state = state
        self.on_change()


def _jitter() -> float:
    """From 0 to 1, so that what happens to several does not happen at once."""
    return random.random()  # noqa: S311  # no secret
