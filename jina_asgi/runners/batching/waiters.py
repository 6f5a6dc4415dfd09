"""Who rides in a batch: values, the requests that they came with, and who else waits for the same answer."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, Protocol

from jina_asgi.errors import DeadlineExceeded, ExecutorError, JinaASGIError
from jina_asgi.errors._raised import carried, described, is_a, sound
from jina_asgi.runners.batching._items import Batch, Item

_WAITING = ("new", "queued")
Share = Callable[[Any, Any, Any], Any]
Waiter = tuple["Request", int, Any]  # the request, the place in it, and the value that it gave


class Rider(Item):
    """One value in the queue, and its place in the request that it came with.

    `deadline` is that of whoever waits longest. With single flight
    `input` names the value, `own` is that of whoever is answered first, and `others` wait for the same answer.
    """

    __slots__ = ("allowed", "index", "input", "others", "own", "request", "value")

    input: Hashable
    others: list[Waiter] | None

    def __init__(self, value: Any, key: Hashable, cost: float, deadline: float, request: Request, index: int) -> None:
        # All that `Item` has, too: calling its own `__init__` would cost a twentieth of a call.
        self.key, self.cost, self.deadline, self.latest = key, cost, deadline, math.inf
        self.arrived, self.order, self.state, self.deaths = 0.0, 0, "new", 0
        self.tenant, self.priority = "", 0
        self.value, self.request, self.index, self.own = value, request, index, value
        self.input = self.others = None
        self.allowed = math.inf  # seconds from arrival to answer, with a latency target

    @property
    def requests(self) -> list[Request]:
        """All who wait."""
        if self.others is None:
            return [self.request]
        return list(dict.fromkeys([self.request, *(request for request, _, _ in self.others)]))

    def join(self, request: Request, index: int, value: Any) -> None:
        """One more waits for the answer; while it is queued, as long as that one waits."""
        if self.others is None:
            self.others = []
        self.others.append((request, index, value))
        if self.state in _WAITING:
            self.deadline = max(self.deadline, request.deadline)

    def leave(self, request: Request) -> bool:
        """A request waits no more; True where nobody else does."""
        others = [waiter for waiter in self.others or () if waiter[0] is not request]
        if self.request is not request:
            self.others = others or None
            return False
        if not others:
            return True
        (self.request, self.index, self.own), *rest = others
        self.others = rest or None
        return False

    def answer(self, answer: Any, share: Share) -> None:
        """Everybody who waits has the answer, each one of their own."""
        for request, index, own in [(self.request, self.index, self.own), *(self.others or ())]:
            try:
                shared = answer if own is self.value else share(self.value, answer, own)
            except BaseException as error:  # noqa: BLE001  # its own: the others have theirs
                request.fail(ExecutorError(f"the answer could not be copied for another caller: {described(error)}"))
            else:
                request.answer(index, shared)


class Request:
    """Values that came together and are answered together, though they may ride in several batches."""

    __slots__ = ("answers", "deadline", "future", "left", "riders")

    def __init__(self, count: int, deadline: float, future: asyncio.Future[list[Any]]) -> None:
        self.answers: list[Any] = [None] * count
        self.left, self.deadline = count, deadline
        self.future: asyncio.Future[list[Any]] | None = future
        self.riders: list[Rider] = []

    async def answered_by(self, until: float) -> list[Any]:
        """The answers, where they come by a moment; what they wait for may go on for others.

        Raises:
            DeadlineExceeded: they do not. Their own error.
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
        self.left -= 1
        if not self.left and self.future is not None and not self.future.done():
            self.future.set_result(self.answers)

    def fail(self, error: BaseException) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_exception(carried(error))

    def end(self) -> None:
        """Its caller has the answer or the error, or left: let go of both, and of the riders that name this."""
        self.riders, self.future = [], None


class Nobody(JinaASGIError):
    """Everybody whose value was in a batch has left before it began; it need not run."""


class Begins(Protocol):
    """Who settles which riders of a batch run, under a lock."""

    lock: threading.Lock

    def begin(self, batch: Batch) -> list[Rider]: ...


class Members:
    """Who is in a batch, settled at the last moment: `take` is called, in any thread, when it begins to run."""

    __slots__ = ("_batch", "_batching", "_taken", "key")

    def __init__(self, batching: Begins, batch: Batch) -> None:
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
    def began(self) -> bool:
        """Whether they have been settled: the batch runs, or has."""
        return self._taken is not None

    @property
    def waiting(self) -> bool:
        """Whether anybody still waits for this batch."""
        return awaited(self._batch)

    @property
    def deadline(self) -> float | None:
        """The moment after which nobody waits for this batch; None where somebody waits for ever."""
        latest = max(item.deadline for item in self._batch.items)
        return None if latest == math.inf else latest


def same(value: Any, answer: Any, own: Any) -> Any:
    """An answer as it is, for whoever reads it only."""
    return answer


def joinable(rider: Rider, until: float) -> bool:
    """Whether one more, whose deadline this is, may wait for a rider.

    While it is queued its deadline may be put off; what has begun ends by the deadline of those it began for.
    """
    return rider.state in _WAITING or (rider.state in ("batched", "running", "again") and until <= rider.deadline)


def awaited(batch: Batch) -> bool:
    """Whether anybody waits for a batch."""
    return any(item.state in ("batched", "running") for item in batch.items)


def own_failure(error: BaseException, name: str) -> BaseException:
    """The error itself, made sound; a cancel that nobody asked for is the function's own failure."""
    if not is_a(error, asyncio.CancelledError):
        return carried(sound(error))
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return error
    failed = ExecutorError(f"{name} was cancelled from within", endpoint=name, raised="CancelledError")
    failed.__cause__ = error
    return failed
