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

from jina_asgi._batch import BatchKernel
from jina_asgi._batch_items import Batch, Bounds, Item
from jina_asgi.errors import DeadlineExceeded, DefinitionError, ExecutorError, JinaASGIError, NotReady, TooLarge
from jina_asgi.runners.blame import checked, fault_of, told

logger = logging.getLogger("jina_asgi")

_LATE = 0.001  # seconds before a deadline at which leaving counts as having expired


class Nobody(JinaASGIError):
    """Everybody whose value was in a batch has left before it began; it need not run."""


class Rider(Item):
    """One value in the queue, and its place in the request that it came with."""

    __slots__ = ("index", "request", "value")

    def __init__(self, value: Any, key: Hashable, cost: float, deadline: float, request: Request, index: int) -> None:
        super().__init__(key, cost, deadline)
        self.value, self.request, self.index = value, request, index


class Request:
    """Values that came together and are answered together, though they may ride in several batches."""

    __slots__ = ("answers", "deadline", "future", "left", "riders")

    def __init__(self, count: int, deadline: float, future: asyncio.Future[list[Any]]) -> None:
        self.answers: list[Any] = [None] * count
        self.left, self.deadline, self.future = count, deadline, future
        self.riders: list[Rider] = []

    def answer(self, index: int, value: Any) -> None:
        self.answers[index] = value
        self.left -= 1
        if not self.left and not self.future.done():
            self.future.set_result(self.answers)

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Members:
    """Who is in a batch, settled at the last moment: `take` is called, in any thread, when it begins to run."""

    __slots__ = ("_batch", "_batching", "_taken", "key")

    def __init__(self, batching: Batching, batch: Batch) -> None:
        self._batching, self._batch, self.key = batching, batch, batch.key
        self._taken: list[Rider] | None = None

    def take(self) -> list[Any]:
        """The values that somebody still waits for.

        Raises:
            Nobody: there are none.
        """
        if not (riders := self.settled()):
            raise Nobody("nobody waits for this batch any more")
        return [rider.value for rider in riders]

    def settled(self) -> list[Rider]:
        """Who runs: settled once, by whoever asks first."""
        with self._batching.lock:
            if self._taken is None:
                self._taken = self._batching.begin(self._batch)
            return self._taken

    @property
    def waiting(self) -> bool:
        """Whether anybody still waits for this batch."""
        return _awaited(self._batch)

    @property
    def deadline(self) -> float | None:
        """The moment after which nobody waits for this batch; None where somebody waits for ever."""
        latest = max(item.deadline for item in self._batch.items)
        return None if latest == math.inf else latest


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
    """

    def __init__(
        self, run: Run, bounds: Bounds, *, slots: int = 1, ahead: int = 0, alone: bool = True, name: str = "a function"
    ) -> None:
        self._run, self._bounds, self._alone, self._shape, self._name = run, bounds, alone, (slots, ahead), name
        self._kernel = BatchKernel(bounds, slots, ahead)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = contextvars.copy_context()  # a batch is nobody's in particular: not one caller's variables
        self._tasks: dict[Batch, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._wakes = math.inf  # when the timer fires
        self._pending_step = self._stopped = False
        self._idle: asyncio.Future[None] | None = None
        self.lock = threading.Lock()  # between a batch's beginning, in a thread, and the loop's cancelling
        self._sizes: Counter[int] = Counter()
        self._counts: Counter[str] = Counter()
        self._waited = self._longest = 0.0

    async def submit(
        self, values: Sequence[Any], key: Hashable, costs: Sequence[float] | None = None, deadline: float | None = None
    ) -> list[Any]:
        """The answers to these values, in order. They ride with others of the same key.

        Raises:
            TooLarge: a value alone is over the budget, and may not run alone.
            DeadlineExceeded: the deadline (on `time.monotonic`'s clock) passed before the last value was run.
            NotReady: serving ended first. DefinitionError: this batches on another event loop just now.
            BatchFailed: the batch failed, and who is to blame is not known. Other errors: the value's own.
        """
        loop = self._bind()
        if self._stopped:
            raise NotReady("serving has ended; try again later")
        if not values:
            return []
        until = math.inf if deadline is None else deadline
        request = Request(len(values), until, loop.create_future())
        request.riders = [
            Rider(value, key, 1.0 if costs is None else costs[index], until, request, index)
            for index, value in enumerate(values)
        ]
        if not self._alone and (over := [r for r in request.riders if not self._kernel.fits(r.cost)]):
            self._counts["over_budget"] += 1
            raise TooLarge(f"expected a cost of at most {self._bounds.max_cost:g}, got {over[0].cost:g}")
        now = time.monotonic()
        for rider in request.riders:
            self._kernel.push(now, rider)
        self._step_soon()
        try:
            return await request.future
        except BaseException as error:
            self._leave(request, told_so=not isinstance(error, asyncio.CancelledError))
            raise

    def begin(self, batch: Batch) -> list[Rider]:
        """Settle who is in a batch, this moment; called with the lock held."""
        now = time.monotonic()
        riders: list[Rider] = self._kernel.began(batch, now)  # type: ignore[assignment]  # what we pushed
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
            item.request.fail(NotReady("stopped before this call was run; try again later"))  # type: ignore[attr-defined]
        for task in self._tasks.values():
            task.cancel()

    async def drain(self) -> None:
        """Wait until nothing is queued and nothing runs."""
        if self._tasks or self._kernel.queued:
            self._idle = self._bind().create_future()
            await self._idle

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
        }

    def _bind(self) -> asyncio.AbstractEventLoop:
        """The running loop; this works for one at a time, and begins anew where another has ended."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None and not self._loop.is_closed() and (self._tasks or self._kernel.queued):
                raise DefinitionError("this batches on another event loop just now; give each loop one of its own")
            self._loop, self._kernel = loop, BatchKernel(self._bounds, *self._shape)
            self._tasks, self._timer, self._wakes, self._pending_step, self._idle = {}, None, math.inf, False, None
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
            task = loop.create_task(self._serve(batch), context=self._context.copy())
            task.add_done_callback(functools.partial(self._ended, batch))
            self._tasks[batch] = task
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

    def _ended(self, batch: Batch, task: asyncio.Task[None]) -> None:
        """A batch is over. Where telling its members went wrong, they are told that: nobody waits for ever."""
        self._tasks.pop(batch, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("a batch could not be answered: %r", error, exc_info=error)
            for item in batch.items:
                item.request.fail(ExecutorError(f"a batch could not be answered: {error!r}"))  # type: ignore[attr-defined]
        self._settle_idle()

    def _settle_idle(self) -> None:
        if self._idle is not None and not self._idle.done() and not self._tasks and not self._kernel.queued:
            self._idle.set_result(None)

    async def _serve(self, batch: Batch) -> None:
        """Run one batch; the next is started before anybody is answered."""
        members = Members(self, batch)
        try:
            answers = await self._run(members)
            taken = members.settled()
            checked(answers, len(taken), self._name)
        except BaseException as error:
            self._failed(batch, members.settled(), _own(error, self._name))
            if not isinstance(error, Exception):
                raise
        else:
            self._kernel.done(batch)
            self._step()
            for rider, answer in zip(taken, answers, strict=True):
                if rider.state == "answered":
                    rider.request.answer(rider.index, answer)
        self._tell_expired([item for item in batch.items if item.state == "expired"])

    def _failed(self, batch: Batch, taken: list[Rider], error: BaseException) -> None:
        several = len({rider.request for rider in taken}) > 1
        failed = self._kernel.failed(batch, fault_of(error, several=several))
        for request in dict.fromkeys(item.request for item in failed):  # type: ignore[attr-defined]  # what we pushed
            request.fail(told(error, several=several))
        self._counts["failed"] += len(failed)
        self._step()

    def _leave(self, request: Request, *, told_so: bool) -> None:
        """Nobody waits for a request any more: what of it has not begun never will."""
        with self.lock:
            waited = sum(self._kernel.cancel(rider) for rider in request.riders)
        if not told_so:
            late = time.monotonic() >= request.deadline - _LATE
            self._counts["expired" if late else "cancelled"] += waited
        if waited:
            self._step_soon()
        if waited < len(request.riders):
            for batch, task in self._tasks.items():
                if not _awaited(batch):
                    task.cancel()

    def _tell_expired(self, items: Sequence[Item]) -> None:
        for item in items:
            self._counts["expired"] += 1
            item.request.fail(DeadlineExceeded("the deadline passed while this call was queued"))  # type: ignore[attr-defined]


def _awaited(batch: Batch) -> bool:
    return any(item.state in ("batched", "running") for item in batch.items)


def _own(error: BaseException, name: str) -> BaseException:
    """The error itself; a cancel that nobody asked for is the function's own failure."""
    task = asyncio.current_task()
    if not isinstance(error, asyncio.CancelledError) or (task is not None and task.cancelling()):
        return error
    failed = ExecutorError(f"{name} was cancelled from within", endpoint=name, raised="CancelledError")
    failed.__cause__ = error
    return failed
