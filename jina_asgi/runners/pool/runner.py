"""The Runner over several replicas: picks a replica for each call, and retries calls when replicas die."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from jina_asgi.concurrency.lifecycle import RUNNING, Lifecycle, health_signal
from jina_asgi.concurrency.tasks import cancel_and_wait, concurrent_tasks, log_failure, start_task
from jina_asgi.errors import (
    DeadlineExceeded,
    ExecutorError,
    JinaASGIError,
    NotReady,
    Overloaded,
    ReplicaDied,
    Unavailable,
    UnknownEndpoint,
)
from jina_asgi.errors._raised import raised_class
from jina_asgi.errors._shown import safe_str
from jina_asgi.runners.admission import Admission, RemoteQueue
from jina_asgi.runners.pool._restarts import CallRetries, Restarts
from jina_asgi.runners.pool.replica import ReplicaHandle
from jina_asgi.runners.pool.supervisor import ReplicaSupervisor
from jina_asgi.types import Call, Docs, Endpoint, Result, Ticket, resolve

logger = logging.getLogger("jina_asgi")


class PoolRunner:
    """A pool of replicas: each call goes to the least loaded one.

    Args:
        name: the pool's, for messages.
        supervisors: one for each replica.
        restarts: the restart state that the supervisors share.
        endpoints: the replicas' endpoints; None: those of the first that comes up.
        max_busy: the most calls that take a thread, and streams, of a replica at once.
        may_retry: whether a call may run again though it had begun when its replica died.
        admission: bounds waiting and running calls.
        grace: seconds that calls get when serving ends.
        on_change: called when replicas come or go.
    """

    #: Whether an unhealthy replica still gets calls, which wait there until it is healthy.
    queue_when_unhealthy = False

    def __init__(
        self,
        name: str,
        supervisors: Sequence[ReplicaSupervisor],
        restarts: Restarts,
        *,
        endpoints: Mapping[str, Endpoint] | None,
        max_busy: int,
        may_retry: Callable[[Endpoint], bool],
        admission: Admission,
        grace: float,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_change, self._endpoints_given = on_change, endpoints is not None
        self.name, self._supervisors, self._restarts, self._endpoints = name, supervisors, restarts, endpoints
        self._max_busy, self._may_retry, self._admission = max_busy, may_retry, admission
        for supervisor in supervisors:
            supervisor.on_change = self._supervisor_changed
        self._handles: list[ReplicaHandle] = []  # of the replicas that have come up
        self._remote_queue = RemoteQueue()
        self._changed = asyncio.Event()
        self._waiting: dict[bool, deque[_Waiter]] = {True: deque(), False: deque()}
        self._calls = 0
        self._life = Lifecycle(grace)
        self._counts = {"moved": 0, "retried": 0, "lost": 0}

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The replicas' endpoints.

        Raises:
            NotReady: they were not given, and no replica has come up yet.
        """
        if self._endpoints is None:
            raise NotReady(f"the endpoints of {self.name} are known once a replica has loaded")
        return self._endpoints

    def admit(self, endpoint: str, *, size: int = 0) -> Ticket:
        if self._life.state != "ready":
            raise NotReady.in_state(self.name, self._life.state)
        self._check()
        self._remote_queue.check()
        return self._admission.admit(size)

    async def call(self, call: Call, /) -> Result:
        endpoint = self._find(call.endpoint)
        retries: CallRetries | None = None
        while True:
            handle = self._take_free(endpoint) or await self._wait_for_free(endpoint)
            try:
                result = await handle.client.call(call)
            except JinaASGIError as error:
                retries = retries or CallRetries(self._counts, self._may_retry(endpoint))
                if not self._runs_again(retries, handle, endpoint, error):
                    raise
            except asyncio.CancelledError:
                handle.mark_doubtful(endpoint)
                raise
            else:
                self._record_answer(handle, endpoint)
                return result
            finally:
                self._release(handle, endpoint)

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        endpoint = self._find(call.endpoint)
        retries = CallRetries(self._counts, self._may_retry(endpoint))
        begun = False
        while True:
            handle = self._take_free(endpoint) or await self._wait_for_free(endpoint)
            try:
                async with aclosing(handle.client.stream(call)) as steps:
                    async for docs in steps:
                        begun = True
                        yield docs
            except JinaASGIError as error:
                if begun and isinstance(error, Unavailable) and self._is_running and not handle.client.is_open:
                    self._counts["lost"] += 1
                    raise ReplicaDied("the replica died in the middle of the stream") from error
                if not self._runs_again(retries, handle, endpoint, error):
                    raise
            else:
                self._record_answer(handle, endpoint)
                return
            finally:
                self._release(handle, endpoint)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        with self._life.running():
            self._restarts.reset()
            self._handles = []
            over, name = log_failure(f"supervising a replica of {self.name}"), f"jina-asgi-{self.name}"
            supervising = [start_task(supervisor.supervise(), over, name=name) for supervisor in self._supervisors]
            try:
                await self._first_ready()
                async with self._life.ending(self._end):
                    self._life.state = "ready"
                    yield
            finally:
                await cancel_and_wait(supervising)

    def unhealthy_reason(self) -> str:
        """Return why no call can be answered now; '' if some can."""
        if clients := [handle.client for handle in self._handles if handle.client.is_open]:
            return min((client.unhealthy_reason for client in clients), key=len)
        if self._restarts.failing:
            return f"{self.name} failed: {self._reason()}"
        return f"no replica of {self.name} is up; it is being started"

    def status(self) -> dict[str, Any]:
        """Return the metrics for `/-/status`."""
        replicas = {f"{self.name}/rep-{supervisor.index}": supervisor.status() for supervisor in self._supervisors}
        return {"replicas": replicas, "queue": self._admission.status(), **self._counts}

    async def _first_ready(self) -> None:
        """Wait until one replica is up.

        Raises:
            ExecutorError: the replicas repeatedly fail to start; with the last failure.
        """
        while not self._handles:
            if self._restarts.failing:
                failure = next(supervisor.failure for supervisor in self._supervisors if supervisor.failure is not None)
                message, error = f"{self.name} failed to load: {safe_str(failure.error)}", failure.error
                raise ExecutorError(message, raised=raised_class(error)) from error
            self._changed.clear()
            await self._changed.wait()
        if self._endpoints is None:
            self._endpoints = self._handles[0].client.endpoints

    async def _end(self) -> None:
        """Wait for accepted calls within the grace period; then stop the replicas and the remaining calls."""
        await self._life.drain(self._calls)
        self._life.state = "stopping"
        self._fail_waiting(f"{self.name} stopped before this call began")
        async with concurrent_tasks(*(supervisor.stop() for supervisor in self._supervisors)) as stopping:
            await self._life.finish(asyncio.gather(*stopping, return_exceptions=True))

    @property
    def _is_running(self) -> bool:
        return self._life.state in RUNNING

    def _find(self, name: str) -> Endpoint:
        if self._life.state not in RUNNING:
            raise NotReady.in_state(self.name, self._life.state)
        endpoint = resolve(self.endpoints, name)
        if endpoint is None:
            raise UnknownEndpoint(f"{self.name} has no endpoint {name!r} and no '/default'")
        return endpoint

    def _check(self) -> None:
        """Refuse a call at once that would wait for replicas that do not start, or are not healthy."""
        is_up = False
        for handle in self._handles:
            if handle.client.is_open:
                if self.queue_when_unhealthy or not handle.client.unhealthy_reason:
                    return
                is_up = True
        if is_up or self._restarts.failing:
            raise NotReady(self.unhealthy_reason())

    def _take_free(self, endpoint: Endpoint) -> ReplicaHandle | None:
        """Take a place at a free replica, unless other calls wait for one; freed by `_release`."""
        handle = None if self._waiting[endpoint.concurrent] else self._least_loaded(endpoint)
        if handle is not None:
            self._calls += 1
            handle.begin_call(endpoint)
        return handle

    async def _wait_for_free(self, endpoint: Endpoint) -> ReplicaHandle:
        """Wait for a free replica and take a place there, as `_take_free`."""
        self._check()
        self._calls += 1
        waiting, waiter = self._waiting[endpoint.concurrent], _Waiter(endpoint)
        waiting.append(waiter)
        try:
            return await waiter.future
        except BaseException:
            if waiter.handle is not None:  # assigned while being cancelled
                self._release(waiter.handle, endpoint)
            else:
                self._call_ended()
                if waiter in waiting:
                    waiting.remove(waiter)
            raise

    def _release(self, handle: ReplicaHandle, endpoint: Endpoint) -> None:
        handle.end_call(endpoint)
        if self._waiting[True] or self._waiting[False]:
            self._dispatch()
        self._call_ended()

    def _call_ended(self) -> None:
        self._calls -= 1
        if not self._calls:
            self._life.idle.set()

    def _least_loaded(self, endpoint: Endpoint) -> ReplicaHandle | None:
        """Return the least loaded replica; one whose threads may be stuck only if no other is free."""
        best: ReplicaHandle | None = None
        for handle in self._handles:
            client = handle.client
            if not client.is_open or (client.unhealthy_reason and not self.queue_when_unhealthy):
                continue
            if endpoint.concurrent or handle.busy < self._max_busy:
                if best is None or handle.load < best.load:
                    best = handle
        return best

    def _dispatch(self) -> None:
        """Assign free places to the calls that have waited longest."""
        for waiting in self._waiting.values():
            while waiting and (handle := self._least_loaded(waiting[0].endpoint)) is not None:
                waiting.popleft().assign(handle)

    def _supervisor_changed(self) -> None:
        self._handles = [supervisor.handle for supervisor in self._supervisors if supervisor.handle is not None]
        self._refresh_endpoints()
        self._changed.set()
        self._on_change()
        health_signal.notify()
        self._dispatch()
        if self._restarts.failing and (reason := self.unhealthy_reason()):
            self._fail_waiting(reason)

    def _fail_waiting(self, reason: str) -> None:
        for waiting in self._waiting.values():
            while waiting:
                waiting.popleft().fail(NotReady(reason))

    def _refresh_endpoints(self) -> None:
        """Update the endpoints, if none were given, to those of the replicas: a reload may have changed them."""
        if self._endpoints is None or self._endpoints_given:
            return
        for handle in self._handles:
            if handle.client.is_open and (found := handle.client.endpoints) != self._endpoints:
                self._endpoints = found

    def _runs_again(
        self, retries: CallRetries, handle: ReplicaHandle, endpoint: Endpoint, error: JinaASGIError
    ) -> bool:
        """Whether a call runs again; False if the error is the Executor's own, or final.

        Raises:
            ReplicaDied: as `CallRetries.may_retry`.
        """
        if isinstance(error, Overloaded) and error.server_wide:
            self._remote_queue.record_refusal(error)
        if handle.client.is_open or not isinstance(error, Unavailable):
            if isinstance(error, DeadlineExceeded):  # a deadline passes whatever the replica does
                handle.mark_doubtful(endpoint)
            else:
                self._record_answer(handle, endpoint)
            return False
        return self._is_running and retries.may_retry(error)

    def _record_answer(self, handle: ReplicaHandle, endpoint: Endpoint) -> None:
        handle.record_answer(endpoint)
        if handle.answered == 1:
            for supervisor in self._supervisors:
                if supervisor.handle is handle:
                    self._restarts.worked(supervisor.index)

    def _reason(self) -> str:
        failures = [supervisor.failure for supervisor in self._supervisors if supervisor.failure is not None]
        return f"its replicas cannot be started {failures[-1]}" if failures else "its replicas die"


class _Waiter:
    """A call that waits for a free replica."""

    __slots__ = ("endpoint", "future", "handle")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.future: asyncio.Future[ReplicaHandle] = asyncio.get_running_loop().create_future()
        self.handle: ReplicaHandle | None = None

    def assign(self, handle: ReplicaHandle) -> None:
        if not self.future.done():
            handle.begin_call(self.endpoint)
            self.handle = handle
            self.future.set_result(handle)

    def fail(self, error: JinaASGIError) -> None:
        if not self.future.done():
            self.future.set_exception(error)
