"""Values in, batches out, each answer back to who asked: the batch kernel on an event loop.

What a batch does is a function given by whoever uses this; here is only who rides together, and who is told what.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any

from jina_asgi.concurrency.tasks import begun
from jina_asgi.errors import (
    DeadlineExceeded,
    DefinitionError,
    ExecutorError,
    NotReady,
    Overloaded,
    TooLarge,
    cut_short,
)
from jina_asgi.errors._raised import again, described, is_a, loggable, sound
from jina_asgi.runners.batching._items import Batch, Bounds, Fault, Item
from jina_asgi.runners.batching._kernel import BatchKernel
from jina_asgi.runners.batching.failures import checked, fault_of, told
from jina_asgi.runners.batching.latency import Pace
from jina_asgi.runners.batching.waiters import Members, Request, Rider, Share, awaited, joinable, own_failure, same

logger = logging.getLogger("jina_asgi")

_LATE = 0.001  # seconds before a deadline at which leaving counts as having expired


Run = Callable[[Members], Awaitable[Sequence[Any]]]


class Batching:
    """The batches of one function, on one event loop at a time.

    Args:
        run: what a batch does: its members' values in, as many answers out, in order.
        bounds: what a batch may hold.
        slots: how many batches run at once.
        ahead: how many full ones are handed to `run` beside those, where it queues them itself.
        alone: a value over the budget runs alone; else it is refused.
        name: what this batches, for errors.
        share: of a value that was run, its answer, and an equal value of another caller: that caller's answer.
        target: seconds from a value's arrival to its answer that 99 of 100 should keep; the rest are refused. None:
            however long it takes.
    """

    def __init__(
        self,
        run: Run,
        bounds: Bounds,
        *,
        slots: int = 1,
        ahead: int = 0,
        alone: bool = True,
        name: str = "a function",
        share: Share = same,
        target: float | None = None,
    ) -> None:
        self._run, self._bounds, self._alone, self._shape, self._name = run, bounds, alone, (slots, ahead), name
        self._share, self._target = share, target
        self._kernel = BatchKernel(bounds, slots, ahead)
        self._pace = None if target is None else Pace(target, bounds, slots)
        self._flights: dict[Hashable, Rider] = {}  # values that wait or run, and more may wait for
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = contextvars.copy_context()  # a batch is nobody's in particular: not one caller's variables
        self._tasks: dict[Batch, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._wakes = math.inf  # when the timer fires
        self._pending_step = self._stopped = False
        self._drained = asyncio.Event()
        self.lock = threading.Lock()  # between a batch's beginning, in a thread, and the loop's cancelling
        self._sizes: Counter[int] = Counter()
        self._counts: Counter[str] = Counter()
        self._waited = self._longest = 0.0

    async def submit(
        self,
        values: Sequence[Any],
        key: Hashable,
        costs: Sequence[float] | None = None,
        deadline: float | None = None,
        *,
        tenant: str = "",
        priority: int = 0,
        inputs: Sequence[Hashable] | None = None,
    ) -> list[Any]:
        """The answers to these values, in order. They ride with others of the same key.

        Where values have `inputs`, those that wait or run under an equal key and input are run once for all.

        Raises:
            TooLarge: a value alone is over the budget, and may not run alone.
            Overloaded: they cannot be answered within the latency target.
            DeadlineExceeded: the deadline (on `time.monotonic`'s clock) passed before the last value was run.
            NotReady: serving ended first. DefinitionError: this batches on another event loop just now.
            BatchFailed: the batch failed, and who is to blame is not known. Other errors: the value's own.
        """
        loop = self._bind()
        if self._stopped:
            raise NotReady("serving has ended; try again later")
        if not values:
            return []
        if costs is not None and not self._alone and (over := [cost for cost in costs if not self._kernel.fits(cost)]):
            self._counts["over_budget"] += 1
            raise TooLarge(f"expected a cost of at most {self._bounds.max_cost:g}, got {over[0]:g}")
        until = math.inf if deadline is None else deadline
        answered: asyncio.Future[list[Any]] = loop.create_future()
        request = Request(len(values), until, answered)
        try:
            if inputs is None:
                request.riders = [
                    Rider(value, key, 1.0 if costs is None else costs[index], until, request, index)
                    for index, value in enumerate(values)
                ]
                self._push(request.riders, tenant, priority)
            else:
                self._push(self._boarded(request, values, key, costs, inputs), tenant, priority)
            if inputs is None or until == math.inf:
                return await answered
            return await request.answered_by(until)
        except BaseException as error:
            self._leave(request, told_so=not isinstance(error, asyncio.CancelledError))
            raise
        finally:
            request.end()
            del answered  # it holds the error whose traceback holds this frame

    def _boarded(
        self,
        request: Request,
        values: Sequence[Any],
        key: Hashable,
        costs: Sequence[float] | None,
        inputs: Sequence[Hashable],
    ) -> list[Rider]:
        """The values that must be run; the others wait for those that are, or will be."""
        new: list[Rider] = []
        for index, (value, given) in enumerate(zip(values, inputs, strict=True)):
            found = self._flights.get((key, given))
            if found is not None and joinable(found, request.deadline):
                found.join(request, index, value)
                self._counts["joined"] += 1
            else:
                cost = 1.0 if costs is None else costs[index]
                found = Rider(value, key, cost, request.deadline, request, index)
                found.input = (key, given)
                self._flights[found.input] = found
                new.append(found)
            request.riders.append(found)
        return new

    def _push(self, riders: list[Rider], tenant: str, priority: int) -> None:
        now = time.monotonic()
        if self._pace is not None and riders:
            try:
                self._pace.admit(riders, now, self._kernel, self._tasks)
            except Overloaded:
                self._counts["shed"] += len(riders)
                raise
        push = self._kernel.push
        for rider in riders:
            if tenant or priority:
                rider.tenant, rider.priority = tenant, priority
            push(now, rider)
        self._step_soon()

    def begin(self, batch: Batch) -> list[Rider]:
        """Settle who is in a batch, this moment; called with the lock held."""
        now = time.monotonic()
        riders: list[Rider] = self._kernel.began(batch, now)  # type: ignore[assignment]  # what we pushed
        batch.began = now
        if riders:
            waits = [now - rider.arrived for rider in riders]
            self._sizes[len(riders)] += 1
            self._waited += sum(waits)
            self._longest = max(self._longest, *waits)
        return riders

    def stop(self) -> None:
        """Serving ends: what runs is cancelled, and whoever waits is told to come back."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for item in self._kernel.drop():
            self._fail(item, cut_short("serving ended", begun=False))
        for task in self._tasks.values():
            task.cancel()

    async def drain(self) -> None:
        """Wait until nothing is queued and nothing runs."""
        self._bind()
        while self._tasks or self._kernel.queued:
            self._drained.clear()
            await self._drained.wait()

    def status(self) -> dict[str, Any]:
        """The figures, for `/-/status`."""
        with self.lock:
            sizes = dict(sorted(self._sizes.items()))
        ran, items = sum(sizes.values()), sum(size * count for size, count in sizes.items())
        counts = ("cancelled", "expired", "failed", "over_budget")
        return {
            "queued": self._kernel.queued,
            "running": self._kernel.running,
            "batch_sizes": {str(size): count for size, count in sizes.items()},
            "mean_batch_size": round(items / ran, 2) if ran else None,
            "mean_wait_ms": round(self._waited / items * 1000, 3) if items else None,
            "longest_wait_ms": round(self._longest * 1000, 3),
            "size_cap": self._kernel.cap if self._kernel.cap < self._bounds.max_items else None,
            "bisections": self._kernel.bisections,
            **{name: self._counts[name] for name in counts},
            **({} if self._pace is None else {"latency": {**self._pace.status(), "shed": self._counts["shed"]}}),
            **({"joined": self._counts["joined"]} if self._counts["joined"] else {}),
        }

    def _bind(self) -> asyncio.AbstractEventLoop:
        """The running loop; this works for one at a time, and begins anew where another has ended."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None and not self._loop.is_closed() and (self._tasks or self._kernel.queued):
                raise DefinitionError("this batches on another event loop just now; give each loop one of its own")
            self._loop, self._kernel = loop, BatchKernel(self._bounds, *self._shape)
            self._tasks, self._timer, self._wakes, self._pending_step = {}, None, math.inf, False
            self._flights, self._drained = {}, asyncio.Event()
        return loop

    def _step_soon(self) -> None:
        """Decide at the end of this turn of the loop, so that what comes in one turn may ride together."""
        if not self._pending_step:
            self._pending_step = True
            asyncio.get_running_loop().call_soon(self._step, context=self._context)

    def _step(self) -> None:
        self._pending_step = False
        loop = asyncio.get_running_loop()
        decisions = self._kernel.step(time.monotonic())
        for batch in decisions.start:
            members = Members(self, batch)
            over = functools.partial(self._ended, batch, members)
            self._tasks[batch] = begun(self._serve(batch, members), over, context=self._context.copy())
        self._tell_expired(decisions.expired)
        if decisions.wake is not None and decisions.wake < self._wakes:  # one that fires early does no harm
            if self._timer is not None:
                self._timer.cancel()
            self._wakes = decisions.wake
            delay = max(_LATE, decisions.wake - time.monotonic())  # uvloop would spin through less
            self._timer = loop.call_later(delay, self._wake, context=self._context)
        self._settle_idle()

    def _wake(self) -> None:
        self._timer, self._wakes = None, math.inf
        self._step()

    def _ended(self, batch: Batch, members: Members, task: asyncio.Task[None]) -> None:
        """A batch's task is over: settle what it has not, as a task cancelled before its first step runs none of it."""
        self._tasks.pop(batch, None)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if self._kernel.is_running(batch):
            self._failed(batch, members, sound(error or ExecutorError("a batch ended without an answer")))
        elif error is not None and not task.cancelled():
            logger.error("a batch could not be answered: %s", described(error), exc_info=loggable(error))
            for item in batch.items:
                self._fail(item, ExecutorError(f"a batch could not be answered: {described(error)}"))
            self._step_soon()
        self._tell_expired([item for item in batch.items if item.state == "expired"])
        self._settle_idle()

    def _settle_idle(self) -> None:
        if not self._tasks and not self._kernel.queued:
            self._drained.set()

    async def _serve(self, batch: Batch, members: Members) -> None:
        """Run one batch; the next is started before anybody is answered."""
        try:
            answers = await self._run(members)
            taken = members.settled()
            answers = checked(answers, len(taken), self._name)
        except BaseException as error:
            self._failed(batch, members, own_failure(error, self._name))
            if is_a(error, asyncio.CancelledError):
                raise
        else:
            self._kernel.done(batch)
            if self._pace is not None and taken:
                self._pace.ended(batch, taken, time.monotonic(), self._kernel)
            self._step()
            for rider, answer in zip(taken, answers, strict=True):
                if rider.input is not None:
                    self._over(rider)
                    if rider.state == "answered":
                        rider.answer(answer, self._share)
                elif rider.state == "answered":
                    rider.request.answer(rider.index, answer)

    def _failed(self, batch: Batch, members: Members, error: BaseException) -> None:
        began, taken = members.began, members.settled()
        several = len({request for rider in taken for request in rider.requests}) > 1
        fault = Fault.FINAL if self._stopped else fault_of(error, several=several)  # nothing begins again after the end
        failed: list[Rider] = self._kernel.failed(batch, fault)  # type: ignore[assignment]
        for rider in failed:
            self._over(rider)
        told_so = list(dict.fromkeys(request for rider in failed for request in rider.requests))
        for request in told_so:
            its_own = all(request in rider.requests for rider in taken)  # whatever was to blame, it had given it
            places = [rider.index for rider in taken] if all(rider.request is request for rider in taken) else ()
            said = told(error, several=not its_own, began=began, places=places)
            request.fail(again(said) if its_own and several else said)
        self._counts["failed"] += len(failed)
        self._step()

    def _leave(self, request: Request, *, told_so: bool) -> None:
        """Nobody waits for a request any more: what of it has not begun never will."""
        with self.lock:
            alone = [rider for rider in request.riders if rider.leave(request)]
            waited = sum(self._cancelled(rider) for rider in alone)
        for rider in alone:
            self._over(rider)
        if not told_so:
            late = time.monotonic() >= request.deadline - _LATE
            self._counts["expired" if late else "cancelled"] += waited
        if waited:
            self._step_soon()
        if waited < len(alone):
            for batch, task in self._tasks.items():
                if not awaited(batch):
                    task.cancel()

    def _cancelled(self, rider: Rider) -> bool:
        """Whether a value that nobody waits for had not begun; its place in the queue may stay a while, not the value."""
        if not self._kernel.cancel(rider):
            return False
        rider.value = rider.own = None
        return True

    def _tell_expired(self, items: Sequence[Item]) -> None:
        for item in items:
            if self._pace is not None and item.latest < item.deadline:
                self._counts["shed"] += 1
                self._fail(item, self._pace.refusal())
            else:
                self._counts["expired"] += 1
                self._fail(item, DeadlineExceeded("the deadline passed while this call was queued"))

    def _fail(self, item: Item, error: Exception) -> None:
        rider: Rider = item  # type: ignore[assignment]  # what we pushed
        self._over(rider)
        for request in rider.requests:
            request.fail(again(error))

    def _over(self, rider: Rider) -> None:
        """Nobody more may wait for it."""
        if rider.input is not None and self._flights.get(rider.input) is rider:
            del self._flights[rider.input]
