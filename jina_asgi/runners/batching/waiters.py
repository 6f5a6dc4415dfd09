"""The members of a batch: queued values, the submissions they belong to, and callers that share an answer."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from jina_asgi.errors import (
    BatchFailed,
    DeadlineExceeded,
    ExecutorError,
    InvalidDocs,
    JinaASGIError,
    ReplicaDied,
    interrupted_error,
)
from jina_asgi.errors._raised import copy_error, error_text, future_safe, is_a, sanitized
from jina_asgi.errors._shown import class_name, safe_str
from jina_asgi.observability.current_call import CURRENT, CurrentCall
from jina_asgi.runners.batching._items import Batch, FailureKind, Item
from jina_asgi.types import Context


def classify_failure(error: BaseException, *, several: bool) -> FailureKind:
    """Classify a failure by whether, and how, its items may run again. `several`: the batch has several submissions."""
    if _out_of_memory(error):
        return FailureKind.MEMORY
    if isinstance(error, ReplicaDied):
        return FailureKind.DEATH
    if isinstance(error, InvalidDocs) and several and not _is_batch_wide(error):
        return FailureKind.REFUSED
    if not isinstance(error, Exception) or not several or _is_batch_wide(error):
        return FailureKind.FINAL  # of a single submission, one bad value fails all of it
    return FailureKind.POISON


def error_for(error: BaseException, *, several: bool, began: bool, places: Sequence[int] = ()) -> BaseException:
    """Return one submission's error of a failed batch: the batch's own, unless another submission may have caused it.

    `began`: its values had begun to run. `places` are the indexes of the batch's items in the submission, where the batch
    has no other's.
    """
    if not isinstance(error, Exception):
        stopped = interrupted_error("serving ended", begun=began)
        stopped.__cause__ = error
        return stopped
    if not several:
        return _in_request(error, places)
    if _is_batch_wide(error):
        return copy_error(error)  # each caller raises its own instance
    facts = dict(error.facts()) if isinstance(error, ExecutorError) else {"raised": class_name(error)}
    failed = BatchFailed(f"a batch of several calls failed: {safe_str(error)}", **facts)
    failed.__cause__ = error
    return failed


def _in_request(error: Exception, places: Sequence[int]) -> Exception:
    """Return a validation error with the documents' indexes in the submission instead of those in the batch."""
    if not isinstance(error, InvalidDocs) or not error.errors or list(places) == list(range(len(places))):
        return error
    entries = []
    for entry in error.errors:
        first, *rest = entry.get("loc") or [None]
        known = isinstance(first, int) and 0 <= first < len(places)
        entries.append({**entry, "loc": [places[first], *rest]} if known else entry)
    placed = InvalidDocs(error.message, entries)
    placed.__cause__ = error
    return placed


def _is_batch_wide(error: Exception) -> bool:
    """Whether each member alone would have failed alike: a wrong return value, wrong parameters, no replica."""
    if isinstance(error, ExecutorError):
        return error.retriable or bool(error.endpoint and not error.raised)  # an ExecutorError of user code has neither
    if isinstance(error, InvalidDocs):
        return [*(error.errors[0].get("loc", ()) if error.errors else ())][:1] == ["parameters"]
    return isinstance(error, JinaASGIError) and (error.retriable or error.status == 504)


def _out_of_memory(error: BaseException) -> bool:
    """Whether an error says out of memory: MemoryError, torch's OutOfMemoryError, or a RuntimeError with those words."""
    raised = error.raised if isinstance(error, ExecutorError) else class_name(error)
    return raised.endswith("MemoryError") or (
        raised.endswith("RuntimeError") and "out of memory" in safe_str(error).lower()
    )


_WAITING = ("new", "queued")
_PLAIN = (list, tuple)
CopyAnswer = Callable[[Any, Any, Any], Any]
Waiter = tuple["Submission", int, Any]  # the submission, the index in it, and its own value


class QueuedItem(Item):
    """One value in the queue, and its index in its submission.

    `deadline` is the latest of all its waiters. With single flight `dedup_key` identifies the value, `own_value` is that
    of the first waiter, and `other_waiters` share the answer.
    """

    __slots__ = ("budget", "dedup_key", "index", "other_waiters", "own_value", "submission", "value")

    dedup_key: Hashable
    other_waiters: list[Waiter] | None

    def __init__(
        self, value: Any, key: Hashable, cost: float, deadline: float, submission: Submission, index: int
    ) -> None:
        # Sets the fields of `Item`, too: calling its `__init__` would cost a twentieth of a call.
        self.key, self.cost, self.deadline, self.latest_start = key, cost, deadline, math.inf
        self.arrived, self.order, self.state, self.deaths = 0.0, 0, "new", 0
        self.tenant, self.priority = "", 0
        self.value, self.submission, self.index, self.own_value = value, submission, index, value
        self.dedup_key = self.other_waiters = None
        self.budget = math.inf  # seconds from arrival to answer, with a latency target

    @property
    def submissions(self) -> list[Submission]:
        """Return all submissions that wait for the answer."""
        if self.other_waiters is None:
            return [self.submission]
        return list(dict.fromkeys([self.submission, *(submission for submission, _, _ in self.other_waiters)]))

    def add_waiter(self, submission: Submission, index: int, value: Any) -> None:
        """Add a waiter; a queued item takes over its deadline if that is later."""
        if self.other_waiters is None:
            self.other_waiters = []
        self.other_waiters.append((submission, index, value))
        if self.state in _WAITING:
            self.deadline = max(self.deadline, submission.deadline)

    def remove_waiter(self, submission: Submission) -> bool:
        """Remove a submission from the waiters; whether no other waits."""
        others = [waiter for waiter in self.other_waiters or () if waiter[0] is not submission]
        if self.submission is not submission:
            self.other_waiters = others or None
            return False
        if not others:
            return True
        (self.submission, self.index, self.own_value), *rest = others
        self.other_waiters = rest or None
        return False

    def deliver(self, answer: Any, copy_answer: CopyAnswer) -> None:
        """Deliver the answer to all waiters, to each a copy of its own."""
        for submission, index, own in [(self.submission, self.index, self.own_value), *(self.other_waiters or ())]:
            try:
                shared = answer if own is self.value else copy_answer(self.value, answer, own)
            except BaseException as error:  # noqa: BLE001  # fails this waiter only
                submission.fail(
                    ExecutorError(f"the answer could not be copied for another caller: {error_text(error)}")
                )
            else:
                submission.answer(index, shared)


class Submission:
    """Values submitted and answered together, maybe in several batches; `caller` is the call that submits them."""

    __slots__ = ("answers", "caller", "deadline", "future", "items", "unanswered")

    def __init__(self, count: int, deadline: float, future: asyncio.Future[list[Any]]) -> None:
        self.answers: list[Any] = [None] * count
        self.unanswered, self.deadline = count, deadline
        self.future: asyncio.Future[list[Any]] | None = future
        self.items: list[QueuedItem] = []
        self.caller: CurrentCall | None = CURRENT.get()

    async def wait_until(self, until: float) -> list[Any]:
        """Await the answers until a deadline without cancelling shared items.

        Raises:
            DeadlineExceeded: the deadline passed. Else the call's own error.
        """
        assert self.future is not None
        try:
            async with asyncio.timeout(until - time.monotonic()) as limit:
                return await self.future
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineExceeded("the deadline passed before this call was answered") from None

    def answer(self, index: int, value: Any) -> None:
        self.answers[index] = value
        self.unanswered -= 1
        if not self.unanswered and self.future is not None and not self.future.done():
            self.future.set_result(self.answers)

    def fail(self, error: BaseException) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_exception(future_safe(error))

    def release(self) -> None:
        """Drop the references to the future and the items, which reference this."""
        self.items, self.future = [], None


class SingleFlight:
    """The items whose answer further callers may share, by their key and input.

    Attributes:
        joined: how many values have joined another's item.
    """

    __slots__ = ("_items", "joined")

    def __init__(self) -> None:
        self._items: dict[Hashable, QueuedItem] = {}
        self.joined = 0

    def join(
        self,
        submission: Submission,
        values: Sequence[Any],
        key: Hashable,
        costs: Sequence[float] | None,
        inputs: Sequence[Hashable],
    ) -> list[QueuedItem]:
        """Return new items for the values that must run; the other values join items that wait or run."""
        new: list[QueuedItem] = []
        for index, (value, given) in enumerate(zip(values, inputs, strict=True)):
            found = self._items.get((key, given))
            if found is not None and can_join(found, submission.deadline):
                found.add_waiter(submission, index, value)
                self.joined += 1
            else:
                cost = 1.0 if costs is None else costs[index]
                found = QueuedItem(value, key, cost, submission.deadline, submission, index)
                found.dedup_key = (key, given)
                self._items[found.dedup_key] = found
                new.append(found)
            submission.items.append(found)
        return new

    def clear(self) -> None:
        """Forget all items."""
        self._items.clear()

    def leave(self, item: QueuedItem) -> None:
        """Let no further caller join this item."""
        if item.dedup_key is not None and self._items.get(item.dedup_key) is item:
            del self._items[item.dedup_key]


class EmptyBatch(JinaASGIError):
    """All callers of a batch have left before it began; it need not run."""


class BatchMembers:
    """The members of a batch, settled at the last moment: `take` is called, in any thread, when the batch begins.

    `begin` returns the items of the batch that run; it is called once, with the lock held.
    """

    __slots__ = ("_batch", "_begin", "_items", "_lock", "key")

    def __init__(self, batch: Batch, begin: Callable[[Batch], list[QueuedItem]], lock: threading.Lock) -> None:
        self._begin, self._lock, self._batch, self.key = begin, lock, batch, batch.key
        self._items: list[QueuedItem] | None = None

    def take(self) -> list[Any]:
        """Return the values that still have waiters.

        Raises:
            EmptyBatch: there are none.
        """
        if not (items := self.settle()):
            raise EmptyBatch("all callers of this batch have left")
        return [item.value for item in items]

    def settle(self) -> list[QueuedItem]:
        """Return the items that run; settled at the first call."""
        with self._lock:
            if self._items is None:
                self._items = self._begin(self._batch)
            return self._items

    @property
    def contexts(self) -> list[Context]:
        """Return the contexts of the calls whose values run."""
        callers = dict.fromkeys(submission.caller for item in self.settle() for submission in item.submissions)
        return [caller[0] for caller in callers if caller is not None]

    @property
    def began(self) -> bool:
        """Whether the members are settled: the batch runs, or has run."""
        return self._items is not None

    @property
    def deadline(self) -> float | None:
        """Return the latest deadline of the members; None if one has no deadline."""
        latest = max(item.deadline for item in self._batch.items)
        return None if latest == math.inf else latest


def same_answer(value: Any, answer: Any, own: Any) -> Any:
    """Return the answer itself, for callers that only read it."""
    return answer


def can_join(item: QueuedItem, until: float) -> bool:
    """Whether a caller with this deadline may share an item's answer.

    The deadline of a queued item can be extended; that of an item that has begun cannot.
    """
    return item.state in _WAITING or (item.state in ("batched", "running", "again") and until <= item.deadline)


def has_waiters(batch: Batch) -> bool:
    """Whether a caller waits for a batch."""
    return any(item.state in ("batched", "running") for item in batch.items)


def normalized_failure(error: BaseException, name: str) -> BaseException:
    """Return the error sanitized; a CancelledError without a cancel request is the function's failure."""
    if not is_a(error, asyncio.CancelledError):
        return future_safe(sanitized(error))
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return error
    failed = ExecutorError(f"{name} was cancelled from within", endpoint=name, raised="CancelledError")
    failed.__cause__ = error
    return failed


def checked_answers(answers: Any, count: int, name: str) -> Sequence[Any]:
    """Return the answers of the function `name`, checked: an ordered collection with one answer a value.

    Raises:
        ExecutorError: another type or number of answers.
    """
    ordered = hasattr(answers, "__len__") and hasattr(answers, "__getitem__")
    if not ordered or isinstance(answers, Mapping | str | bytes):
        got = class_name(answers)
    elif len(answers) != count:
        got = f"{len(answers)}"
    elif type(answers) in _PLAIN:
        return answers  # type: ignore[no-any-return]  # a list or a tuple
    else:
        return [answers[index] for index in range(count)]  # a user's `__getitem__` may raise: read it here
    raise ExecutorError(f"{name}: expected {count} answers for a batch of {count}, one each, got {got}", endpoint=name)
