"""The Runner over several replicas: who gets a call, and what becomes of it when they die."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from jina_asgi.concurrency.grace import grace_left
from jina_asgi.concurrency.tasks import begun, finished, logged
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
from jina_asgi.errors._raised import class_of
from jina_asgi.errors._shown import said
from jina_asgi.runners.admission import Admission, Elsewhere
from jina_asgi.runners.pool._restarts import Restarts
from jina_asgi.runners.pool.supervisor import Member, Seat
from jina_asgi.types import Call, Docs, Endpoint, Result, Ticket, resolve

logger = logging.getLogger("jina_asgi")

_HURRY = 1.0  # seconds that replicas have to end when serving is cancelled
_MOVES = 8  # to other replicas, of a call that had not begun


class PoolRunner:
    """Replicas side by side: each call goes to the one that has least to do.

    Args:
        name: the pool's, for messages.
        seats: one a replica.
        restarts: what the seats share.
        endpoints: what the replicas serve; None: what the first of them says.
        room: how many calls that take a thread, and streams, a replica is given at once.
        again: whether a call may be run again though it had begun when its replica died.
        admission: bounds what waits and runs.
        grace: seconds that calls get when serving ends.
        called: what the seats hold, for `/-/status`.
        changed: called when replicas come or go.
        patient: what is in trouble is asked all the same, as it lets calls wait until it is not.
    """

    def __init__(
        self,
        name: str,
        seats: Sequence[Seat],
        restarts: Restarts,
        *,
        endpoints: Mapping[str, Endpoint] | None,
        room: int,
        again: Callable[[Endpoint], bool],
        admission: Admission,
        grace: float,
        called: str = "replicas",
        changed: Callable[[], None] = lambda: None,
        patient: bool = False,
    ) -> None:
        self._patient, self._are_given = patient, endpoints is not None
        self._called, self._tell = called, changed
        self.name, self._seats, self._restarts, self._endpoints = name, seats, restarts, endpoints
        self._room, self._again, self._admission, self._grace = room, again, admission, grace
        for seat in seats:
            seat.changed = self._seats_changed
        self._elsewhere = Elsewhere()
        self._changed = asyncio.Event()
        self._waiting: dict[bool, deque[_Waiter]] = {True: deque(), False: deque()}
        self._calls = 0
        self._idle = asyncio.Event()
        self._state = NotReady.NOT_STARTED
        self._counts = {"moved": 0, "retried": 0, "lost": 0}

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """What the replicas serve.

        Raises:
            NotReady: it was not given, and none has come up yet.
        """
        if self._endpoints is None:
            raise NotReady(f"the endpoints of {self.name} are known once a replica has loaded")
        return self._endpoints

    def admit(self, endpoint: str, *, size: int = 0, tenant: str = "", priority: int = 0) -> Ticket:
        if self._state != "ready":
            raise NotReady.in_state(self.name, self._state)
        self._check()
        self._elsewhere.check()
        return self._admission.admit(size)

    async def call(self, call: Call, /) -> Result:
        endpoint = self._find(call.endpoint)
        tries: _Tries | None = None
        while True:
            member = await self._member(endpoint)
            try:
                result = await member.replica.client.call(call)
            except JinaASGIError as error:
                tries = tries or _Tries(self, endpoint)
                if not tries.again(member, error):
                    raise
            except asyncio.CancelledError:
                member.doubt(endpoint)
                raise
            else:
                self._worked(member, endpoint)
                return result
            finally:
                self._leave(member, endpoint)

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        endpoint = self._find(call.endpoint)
        tries = _Tries(self, endpoint)
        begun = False
        while True:
            member = await self._member(endpoint)
            try:
                async with aclosing(member.replica.client.stream(call)) as steps:
                    async for docs in steps:
                        begun = True
                        yield docs
            except JinaASGIError as error:
                if begun and isinstance(error, Unavailable) and self._is_running and not member.is_open:
                    self._counts["lost"] += 1
                    raise ReplicaDied("the replica died in the middle of the stream") from error
                if not tries.again(member, error):
                    raise
            else:
                self._worked(member, endpoint)
                return
            finally:
                self._leave(member, endpoint)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self._state, hurried = "loading", False
        self._restarts.again()
        over = logged(f"keeping a replica of {self.name}")
        keeping = [begun(seat.keep(), over, name=f"jina-asgi-{self.name}") for seat in self._seats]
        try:
            await self._first_ready()
            self._state = "ready"
            try:
                yield
            except asyncio.CancelledError:
                hurried = True
                raise
            finally:
                self._state = "draining"
                await self._drain(hurried)
        finally:
            self._state = "stopped"
            await finished(keeping)

    def trouble(self) -> str:
        """Why no call can be answered just now; nothing where some can."""
        open_ones = [seat.member for seat in self._seats if seat.member is not None and seat.member.is_open]
        if open_ones:
            return min((member.replica.client.unhealthy_reason for member in open_ones), key=len)
        if self._restarts.failing:
            return f"{self.name} failed: {self._reason()}"
        return f"no replica of {self.name} is up; it is being started"

    def status(self) -> dict[str, Any]:
        """The figures, for `/-/status`; those of what keeps the replicas elsewhere, as it last told them, before ours."""
        members = {f"{self.name}/rep-{seat.index}": seat.status() for seat in self._seats}
        ours = {"queue": self._admission.status(), **self._counts}
        told = next((seat.member.replica.client.metrics for seat in self._seats if seat.member is not None), None)
        return {**told, "worker": ours, self._called: members} if told else {self._called: members, **ours}

    async def _first_ready(self) -> None:
        """Wait until one replica is up.

        Raises:
            ExecutorError, NotReady: they fail to come up, again and again; as the last of them said.
        """
        while not any(seat.member is not None for seat in self._seats):
            if self._restarts.failing:
                failure = next(seat.failure for seat in self._seats if seat.failure is not None)
                message, error = f"{self.name} failed to load: {said(failure.error)}", failure.error
                raise ExecutorError(message, raised=class_of(error)) from error
            self._changed.clear()
            await self._changed.wait()
        client = next(seat.member.replica.client for seat in self._seats if seat.member is not None)
        if self._endpoints is None:
            self._endpoints = client.endpoints

    async def _drain(self, hurried: bool) -> None:
        """Let what was accepted end within the grace period; then end the replicas, and with them what is left."""
        cancelled: list[asyncio.CancelledError] = []  # emptied: its traceback holds this frame
        if self._calls:
            self._idle.clear()
            try:
                async with asyncio.timeout(0.0 if hurried else grace_left(self._grace)):
                    await self._idle.wait()
            except TimeoutError:
                pass
            except asyncio.CancelledError as error:
                cancelled[:] = [error]
        self._state = "stopping"
        for waiters in self._waiting.values():
            while waiters:
                waiters.popleft().fail(NotReady(f"{self.name} stopped before this call began"))
        stopping = asyncio.gather(*(seat.stop() for seat in self._seats), return_exceptions=True)
        try:
            async with asyncio.timeout(_HURRY if hurried or cancelled else None):
                await stopping
        except TimeoutError:
            pass  # being cancelled they were killed
        except asyncio.CancelledError as error:
            cancelled[:] = [error]
        if cancelled:
            raise cancelled.pop()

    @property
    def _is_running(self) -> bool:
        return self._state in ("ready", "draining")

    def _find(self, name: str) -> Endpoint:
        if not self._is_running:
            raise NotReady.in_state(self.name, self._state)
        endpoint = resolve(self.endpoints, name)
        if endpoint is None:
            raise UnknownEndpoint(f"{self.name} has no endpoint {name!r} and no '/default'")
        return endpoint

    def _check(self) -> None:
        """Refuse at once what would wait for replicas that do not come up, or are not healthy."""
        if self._restarts.failing and (trouble := self.trouble()):
            raise NotReady(trouble)
        if not self._patient and self._unhealthy():
            raise NotReady(self.trouble())

    def _unhealthy(self) -> bool:
        """Whether replicas are up, and none of them can answer."""
        members = [seat.member for seat in self._seats if seat.member is not None and seat.member.is_open]
        return bool(members) and all(member.replica.client.unhealthy_reason for member in members)

    async def _member(self, endpoint: Endpoint) -> Member:
        """A place at a replica, waited for; given back by `_leave`."""
        self._check()
        waiting = self._waiting[endpoint.concurrent]
        member = None if waiting else self._free(endpoint)
        self._calls += 1
        if member is not None:
            member.take(endpoint)
            return member
        waiter = _Waiter(endpoint)
        waiting.append(waiter)
        try:
            return await waiter.future
        except BaseException:
            if waiter.member is not None:  # given at the moment of being cancelled
                self._leave(waiter.member, endpoint)
            else:
                self._left()
                if waiter in waiting:
                    waiting.remove(waiter)
            raise

    def _leave(self, member: Member, endpoint: Endpoint) -> None:
        member.leave(endpoint)
        self._assign()
        self._left()

    def _left(self) -> None:
        self._calls -= 1
        if not self._calls:
            self._idle.set()

    def _free(self, endpoint: Endpoint) -> Member | None:
        """The replica that has least to do; one whose threads may be stuck gets a call if no other can take it."""
        best: Member | None = None
        for seat in self._seats:
            member = seat.member
            if member is None or not member.is_open or (member.replica.client.unhealthy_reason and not self._patient):
                continue
            if endpoint.concurrent or member.busy < self._room:
                if best is None or member.load < best.load:
                    best = member
        return best

    def _assign(self) -> None:
        """Give free places to those who have waited longest."""
        for waiting in self._waiting.values():
            while waiting and (member := self._free(waiting[0].endpoint)) is not None:
                waiting.popleft().give(member)

    def _seats_changed(self) -> None:
        self._follow()
        self._changed.set()
        self._tell()
        self._assign()
        if self._restarts.failing and (trouble := self.trouble()):
            for waiting in self._waiting.values():
                while waiting:
                    waiting.popleft().fail(NotReady(trouble))

    def _follow(self) -> None:
        """Where no endpoints were given they are those of the last that came up: after a reload there may be others."""
        if self._endpoints is None or self._are_given:
            return
        for seat in self._seats:
            if seat.member is not None and seat.member.is_open:
                found = seat.member.replica.client.endpoints
                if found != self._endpoints:
                    self._endpoints = found

    def _worked(self, member: Member, endpoint: Endpoint) -> None:
        member.answer(endpoint)
        if member.answered == 1:
            for seat in self._seats:
                if seat.member is member:
                    self._restarts.worked(seat.index)

    def _reason(self) -> str:
        failures = [seat.failure for seat in self._seats if seat.failure is not None]
        return f"its replicas cannot be started {failures[-1]}" if failures else "its replicas die"


class _Waiter:
    """A call that waits for a place at a replica."""

    __slots__ = ("endpoint", "future", "member")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.future: asyncio.Future[Member] = asyncio.get_running_loop().create_future()
        self.member: Member | None = None

    def give(self, member: Member) -> None:
        if not self.future.done():
            member.take(self.endpoint)
            self.member = member
            self.future.set_result(member)

    def fail(self, error: JinaASGIError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class _Tries:
    """How often one call has been tried."""

    __slots__ = ("_deaths", "_endpoint", "_moves", "_pool")

    def __init__(self, pool: PoolRunner, endpoint: Endpoint) -> None:
        self._pool, self._endpoint = pool, endpoint
        self._deaths = self._moves = 0

    def again(self, member: Member, error: JinaASGIError) -> bool:
        """Whether the call may be tried again; False where the error is the Executor's own, or ends the call.

        Raises:
            ReplicaDied: it had begun, and may not begin again, or has now ended two replicas.
        """
        pool = self._pool
        if isinstance(error, Overloaded) and error.everybody:
            pool._elsewhere.refused(error)
        if member.is_open or not isinstance(error, Unavailable):
            if isinstance(error, DeadlineExceeded):  # which passes whatever the replica does
                member.doubt(self._endpoint)
            else:
                pool._worked(member, self._endpoint)
            return False
        if not pool._is_running:
            return False
        if not isinstance(error, ReplicaDied):
            self._moves += 1
            pool._counts["moved"] += 1
            return self._moves <= _MOVES
        self._deaths += 1
        if self._deaths > 1:
            pool._counts["lost"] += 1
            raise ReplicaDied("two replicas died while they ran this call, which is not tried again") from error
        if not pool._again(self._endpoint):
            pool._counts["lost"] += 1
            raise ReplicaDied("the replica died while it ran this call; whether it took effect is not known") from error
        pool._counts["retried"] += 1
        return True
