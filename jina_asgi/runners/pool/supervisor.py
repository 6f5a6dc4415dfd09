"""Supervises one replica: start, health check, restart with backoff."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Any

from jina_asgi.concurrency.tasks import any_done, cancel_and_wait, concurrent_tasks, log_failure, start_task
from jina_asgi.errors._shown import safe_str
from jina_asgi.errors.load_failure import LoadFailure
from jina_asgi.runners.pool._restarts import Restarts
from jina_asgi.runners.pool.replica import Replica, ReplicaHandle

logger = logging.getLogger("jina_asgi")


class ReplicaSupervisor:
    """Keeps one replica running: starts it, checks its health, restarts or replaces it.

    Args:
        index: the replica's number in the pool.
        make: creates a replica, not started.
        restarts: the pool's restart state.
        heartbeat: seconds without an answer after which a replica counts as hung, and is killed.
        max_requests: calls after which it is replaced (0: never); each replica adds up to a tenth, so that they are not
            replaced together.
        max_rss: bytes of resident memory above which it is replaced (0: never); one that exceeds it right after
            loading is kept, with a log entry.
        grace: seconds that the calls of a replaced replica get.
        is_permanent: whether a start error makes a retry soon useless.
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
        self.state, self.restarts, self.deaths = "stopped", 0, 0
        self.failure: LoadFailure | None = None
        self.on_change: Callable[[], None] = lambda: None
        self._retiring: dict[asyncio.Task[None], ReplicaHandle] = {}
        self._not_before = 0.0  # the earliest time of the next replacement
        self._stopping = False

    async def supervise(self) -> None:
        """Keep a replica running until cancelled; then kill it."""
        self._stopping = False
        try:
            while True:
                try:
                    delay = await self._run_one_replica()
                except Exception:
                    logger.exception("supervising replica %d failed; it is started again", self.index)
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
        """Kill the current replica and the retiring ones, with their remaining calls."""
        retiring = dict(self._retiring)
        handles = [*retiring.values(), *([] if self.handle is None else [self.handle])]
        self.handle = None
        try:
            await asyncio.gather(*(handle.replica.kill("was stopped") for handle in handles), return_exceptions=True)
        finally:
            await cancel_and_wait(retiring)

    async def stop(self) -> None:
        """Stop the replica gracefully; `supervise` must be cancelled next."""
        self._stopping = True
        if self.handle is not None:
            self._set_state("draining")
            await self.handle.replica.stop()

    def status(self) -> dict[str, Any]:
        """Return the metrics for `/-/status`."""
        handle = self.handle
        ending = self.state == "ready" and handle is not None and not handle.client.is_open
        return {
            "state": "ending" if ending else self.state,
            "pid": None if handle is None else handle.replica.pid,
            "device": "" if handle is None else handle.replica.device,
            "in_flight": 0 if handle is None else handle.calls,
            "answered": 0 if handle is None else handle.answered,
            "restarts": self.restarts,
            "deaths": self.deaths,
            "failure": None if self.failure is None else self.failure.status(),
        }

    async def _run_one_replica(self) -> float:
        """Run one replica from start to end; return the seconds to wait before the next start."""
        self._set_state("loading")
        try:
            replica = self._make(self.index)
            await replica.start()
        except Exception as error:  # noqa: BLE001  # loading may raise anything; kept for `status`, and logged
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
            if not self.handle.client.is_open:
                break
        handle, self.handle = self.handle, None
        await handle.replica.kill(why)
        if self._stopping:
            return 0.0
        self.deaths += 1
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
        """Watch a replica until it ends or was replaced; return the reason."""
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
        client = handle.client
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
        """Start a new replica first, then let the old one finish its calls."""
        try:
            replica = self._make(self.index)
            await replica.start()
        except Exception as error:  # noqa: BLE001  # loading may raise anything; the old one goes on
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
        except TimeoutError:  # killing it decides which calls had begun and which can move
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
    """Return a random number from 0 to 1, so that replicas do not act in lockstep."""
    return random.random()  # noqa: S311  # not for security
