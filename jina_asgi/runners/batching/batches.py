"""Runs the batch kernel on an event loop: forms batches of submitted values and returns each answer to its caller.

The function that runs a batch is an argument; this module decides batch members, answers and errors.
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

from jina_asgi.concurrency.tasks import start_task
from jina_asgi.errors import (
    DeadlineExceeded,
    DefinitionError,
    ExecutorError,
    NotReady,
    Overloaded,
    TooLarge,
    interrupted_error,
)
from jina_asgi.errors._raised import copy_error, error_text, is_a, loggable, sanitized
from jina_asgi.runners.batching import waiters
from jina_asgi.runners.batching._items import Batch, Bounds, FailureKind, Item
from jina_asgi.runners.batching._kernel import BatchKernel
from jina_asgi.runners.batching.latency import LatencyController
from jina_asgi.runners.batching.waiters import (
    BatchMembers,
    CopyAnswer,
    QueuedItem,
    SingleFlight,
    Submission,
)
from jina_asgi.runners.measures import BatchObserver, Unobserved

logger = logging.getLogger("jina_asgi")

_LATE = 0.001  # seconds before a deadline at which leaving counts as having expired

Run = Callable[[BatchMembers], Awaitable[Sequence[Any]]]


class Batching:
    """Batches the calls of one function, on one event loop at a time.

    Args:
        run: runs a batch: the members' values in, as many answers out, in order.
        bounds: the limits of a batch.
        slots: how many batches run at once.
        ahead: how many full batches are passed to `run` in addition, where it queues them itself.
        oversized_alone: a value over the budget runs alone; else it is refused.
        name: the name of the function, for errors.
        copy_answer: (value, answer, other) -> the answer for the equal value `other` of another caller.
        target: the latency target in seconds that 99 of 100 answers should meet; the rest are refused. None: no target.
        submissions: the class of the submissions.
    """

    def __init__(
        self,
        run: Run,
        bounds: Bounds,
        *,
        slots: int = 1,
        ahead: int = 0,
        oversized_alone: bool = True,
        name: str = "a function",
        copy_answer: CopyAnswer = waiters.same_answer,
        target: float | None = None,
        submissions: type[Submission] = Submission,
    ) -> None:
        self._run, self._bounds, self._name = run, bounds, name
        self._oversized_alone, self._shape = oversized_alone, (slots, ahead)
        self._copy_answer, self._target, self._submissions = copy_answer, target, submissions
        self._kernel = BatchKernel(bounds, slots, ahead)
        self._latency = None if target is None else LatencyController(target, bounds, slots)
        self._single_flight = SingleFlight()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = contextvars.copy_context()  # batches run outside of any caller's contextvars
        self._tasks: dict[Batch, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at = math.inf  # when the timer fires
        self._pending_step = self._stopped = False
        self._drained = asyncio.Event()
        self._lock = threading.Lock()  # a batch begins in a thread while the loop may cancel its items
        self._sizes: Counter[int] = Counter()
        self._counts: Counter[str] = Counter()
        self._waited = self._longest = 0.0
        self.observer: BatchObserver = Unobserved()

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
        """Return the answers to these values, in order, batched with other values of the same key.

        With `inputs`, values of equal key and input that wait or run are run once for all callers.

        Raises:
            TooLarge: a value alone is over the budget, and may not run alone.
            Overloaded: they cannot be answered within the latency target.
            DeadlineExceeded: the deadline (on `time.monotonic`'s clock) passed before the last value was run.
            NotReady: serving ended first. DefinitionError: batches run on another event loop now.
            BatchFailed: the batch failed, and which call caused it is not known. Other errors: the value's own.
        """
        loop = self._bind()
        if self._stopped:
            raise NotReady("serving has ended; try again later")
        if not values:
            return []
        if not self._oversized_alone and (over := [cost for cost in costs or () if not self._kernel.fits(cost)]):
            self._counts["over_budget"] += 1
            raise TooLarge(f"expected a cost of at most {self._bounds.max_cost:g}, got {over[0]:g}")
        until = math.inf if deadline is None else deadline
        answered: asyncio.Future[list[Any]] = loop.create_future()
        submission = self._submissions(len(values), until, answered)
        try:
            if inputs is None:
                submission.items = [
                    QueuedItem(value, key, 1.0 if costs is None else costs[index], until, submission, index)
                    for index, value in enumerate(values)
                ]
                self._push(submission.items, tenant, priority)
            else:
                self._push(self._single_flight.join(submission, values, key, costs, inputs), tenant, priority)
            if inputs is None or until == math.inf:
                return await answered
            return await submission.wait_until(until)
        except BaseException as error:
            self._withdraw(submission, answered=not isinstance(error, asyncio.CancelledError))
            raise
        finally:
            submission.release()
            del answered  # it references the error whose traceback references this frame

    def _push(self, items: list[QueuedItem], tenant: str, priority: int) -> None:
        now = time.monotonic()
        if self._latency is not None and items:
            try:
                self._latency.admit(items, now, self._kernel, self._tasks)
            except Overloaded:
                self._counts["shed"] += len(items)
                raise
        push = self._kernel.push
        for item in items:
            if tenant or priority:
                item.tenant, item.priority = tenant, priority
            push(now, item)
        self._step_soon()

    def _begin(self, batch: Batch) -> list[QueuedItem]:
        """Settle the items of a batch that begins now; called with the lock held."""
        now = time.monotonic()
        items: list[QueuedItem] = self._kernel.began(batch, now)  # type: ignore[assignment]  # what we pushed
        batch.began = now
        if items:
            waits = [now - item.arrived for item in items]
            self._sizes[len(items)] += 1
            self._waited += sum(waits)
            self._longest = max(self._longest, *waits)
            self.observer.began(waits)
        return items

    def stop(self) -> None:
        """End serving: cancel running batches, and fail waiting calls with NotReady."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for item in self._kernel.drop():
            self._fail(item, interrupted_error("serving ended", begun=False))
        for task in self._tasks.values():
            task.cancel()

    async def drain(self) -> None:
        """Wait until the queue is empty and no batch runs."""
        self._bind()
        while self._tasks or self._kernel.queued:
            self._drained.clear()
            await self._drained.wait()

    def status(self) -> dict[str, Any]:
        """Return the metrics for `/-/status`."""
        with self._lock:
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
            **({} if self._latency is None else {"latency": {**self._latency.status(), "shed": self._counts["shed"]}}),
            **({"joined": self._single_flight.joined} if self._single_flight.joined else {}),
        }

    def _bind(self) -> asyncio.AbstractEventLoop:
        """Return the running loop; state is reset if the previous loop has ended."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None and not self._loop.is_closed() and (self._tasks or self._kernel.queued):
                raise DefinitionError("this batches on another event loop just now; give each loop one of its own")
            self._loop, self._kernel = loop, BatchKernel(self._bounds, *self._shape)
            self._tasks, self._timer, self._wake_at, self._pending_step = {}, None, math.inf, False
            self._drained = asyncio.Event()
            self._single_flight.clear()
        return loop

    def _step_soon(self) -> None:
        """Schedule a step at the end of this loop iteration, so that values of one iteration share a batch."""
        if not self._pending_step:
            self._pending_step = True
            asyncio.get_running_loop().call_soon(self._step, context=self._context)

    def _step(self) -> None:
        self._pending_step = False
        loop = asyncio.get_running_loop()
        decisions = self._kernel.step(time.monotonic())
        for batch in decisions.start:
            members = BatchMembers(batch, self._begin, self._lock)
            over = functools.partial(self._ended, batch, members)
            self._tasks[batch] = start_task(self._serve(batch, members), over, context=self._context.copy())
        self._fail_expired(decisions.expired)
        if decisions.wake is not None and decisions.wake < self._wake_at:  # an early wake-up does no harm
            if self._timer is not None:
                self._timer.cancel()
            self._wake_at = decisions.wake
            delay = max(_LATE, decisions.wake - time.monotonic())  # uvloop busy-waits for shorter delays
            self._timer = loop.call_later(delay, self._wake, context=self._context)
        self._settle_idle()

    def _wake(self) -> None:
        self._timer, self._wake_at = None, math.inf
        self._step()

    def _ended(self, batch: Batch, members: BatchMembers, task: asyncio.Task[None]) -> None:
        """Settle a batch whose task has ended, as a task cancelled before its first step runs none of its code."""
        self._tasks.pop(batch, None)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if self._kernel.is_running(batch):
            self._failed(batch, members, sanitized(error or ExecutorError("a batch ended without an answer")))
        elif error is not None and not task.cancelled():
            logger.error("a batch could not be answered: %s", error_text(error), exc_info=loggable(error))
            for item in batch.items:
                self._fail(item, ExecutorError(f"a batch could not be answered: {error_text(error)}"))
            self._step_soon()
        self._fail_expired([item for item in batch.items if item.state == "expired"])
        self._settle_idle()

    def _settle_idle(self) -> None:
        if not self._tasks and not self._kernel.queued:
            self._drained.set()

    async def _serve(self, batch: Batch, members: BatchMembers) -> None:
        """Run one batch; the next one is started before the answers are delivered."""
        try:
            answers = await self._run(members)
            ran = members.settle()
            answers = waiters.checked_answers(answers, len(ran), self._name)
        except BaseException as error:
            self._failed(batch, members, waiters.normalized_failure(error, self._name))
            if is_a(error, asyncio.CancelledError):
                raise
        else:
            self._kernel.done(batch)
            if ran:
                self.observer.ended((now := time.monotonic()) - batch.began)
                if self._latency is not None:
                    self._latency.batch_ended(batch, ran, now, self._kernel)
            self._step()
            for item, answer in zip(ran, answers, strict=True):
                if item.dedup_key is not None:
                    self._single_flight.leave(item)
                    if item.state == "answered":
                        item.deliver(answer, self._copy_answer)
                elif item.state == "answered":
                    item.submission.answer(item.index, answer)

    def _failed(self, batch: Batch, members: BatchMembers, error: BaseException) -> None:
        began, ran = members.began, members.settle()
        several = len({submission for item in ran for submission in item.submissions}) > 1
        kind = FailureKind.FINAL if self._stopped else waiters.classify_failure(error, several=several)
        failed: list[QueuedItem] = self._kernel.failed(batch, kind)  # type: ignore[assignment]
        for item in failed:
            self._single_flight.leave(item)
        submissions = list(dict.fromkeys(submission for item in failed for submission in item.submissions))
        for submission in submissions:
            is_alone = all(submission in item.submissions for item in ran)  # all items of the batch are its own
            places = [item.index for item in ran] if all(item.submission is submission for item in ran) else ()
            own_error = waiters.error_for(error, several=not is_alone, began=began, places=places)
            submission.fail(copy_error(own_error) if is_alone and several else own_error)
        self._counts["failed"] += len(failed)
        self._step()

    def _withdraw(self, submission: Submission, *, answered: bool) -> None:
        """Withdraw a submission whose caller has left: its queued items never run."""
        with self._lock:
            alone = [item for item in submission.items if item.remove_waiter(submission)]
            waited = sum(self._was_cancelled(item) for item in alone)
        for item in alone:
            self._single_flight.leave(item)
        if not answered:
            late = time.monotonic() >= submission.deadline - _LATE
            self._counts["expired" if late else "cancelled"] += waited
        if waited:
            self._step_soon()
        if waited < len(alone):
            for batch, task in self._tasks.items():
                if not waiters.has_waiters(batch):
                    task.cancel()

    def _was_cancelled(self, item: QueuedItem) -> bool:
        """Cancel an item; whether it had not begun. Its queue entry may stay for a while, its value is dropped."""
        if not self._kernel.cancel(item):
            return False
        item.value = item.own_value = None
        return True

    def _fail_expired(self, items: Sequence[Item]) -> None:
        for item in items:
            if self._latency is not None and item.latest_start < item.deadline:
                self._counts["shed"] += 1
                self._fail(item, self._latency.refusal())
            else:
                self._counts["expired"] += 1
                self._fail(item, DeadlineExceeded("the deadline passed while this call was queued"))

    def _fail(self, item: Item, error: Exception) -> None:
        queued: QueuedItem = item  # type: ignore[assignment]  # what we pushed
        self._single_flight.leave(queued)
        for submission in queued.submissions:
            submission.fail(copy_error(error))
