"""Who rides in a batch: values, the requests that they came with, and who else waits for the same answer."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Callable, Hashable
from typing import Any

from jina_asgi._batch_items import Batch, Item
from jina_asgi.errors import ExecutorError
from jina_asgi.runners.blame import told

Share = Callable[[Any, Any, Any], Any]
Waiter = tuple["Request", int, Any]  # the request, the place in it, and the value that it gave


class Rider(Item):
    """One value in the queue, and its place in the request that it came with.

    `until` is the deadline of whoever waits longest, `deadline` when it is no use to begin any more. With single flight
    `input` names the value, `own` is that of whoever is answered first, and `others` wait for the same answer.
    """

    __slots__ = ("allowed", "index", "input", "latest", "others", "own", "request", "until", "value")

    def __init__(self, value: Any, key: Hashable, cost: float, deadline: float, request: Request, index: int) -> None:
        super().__init__(key, cost, deadline)
        self.value = self.own = value
        self.request, self.index, self.until = request, index, deadline
        self.input: Hashable = None
        self.others: list[Waiter] | None = None
        self.allowed = self.latest = math.inf  # with a latency target: seconds to its answer, and when it must begin

    @property
    def requests(self) -> list[Request]:
        """All who wait."""
        if self.others is None:
            return [self.request]
        return list(dict.fromkeys([self.request, *(request for request, _, _ in self.others)]))

    def join(self, request: Request, index: int, value: Any) -> None:
        """One more waits for the answer; while it is queued, as long as that one waits."""
        self.others = [*(self.others or ()), (request, index, value)]
        if self.state == "queued" and request.deadline > self.until:
            self.until = request.deadline
            self.deadline = min(self.until, self.latest)

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
        if self.others is None and self.own is self.value:
            self.request.answer(self.index, answer)
            return
        for request, index, own in [(self.request, self.index, self.own), *(self.others or ())]:
            try:
                shared = answer if own is self.value else share(self.value, answer, own)
            except Exception as error:  # noqa: BLE001  # its own: the others have theirs
                request.fail(ExecutorError(f"the answer could not be copied for another caller: {error!r}"))
            else:
                request.answer(index, shared)

    def fail(self, error: BaseException, *, several: bool) -> None:
        """Everybody who waits is told, each an error of their own."""
        first, *others = self.requests
        first.fail(told(error, several=several))
        for request in others:
            request.fail(copy.copy(told(error, several=several)))


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


def joinable(rider: Rider, until: float) -> bool:
    """Whether one more, whose deadline this is, may wait for a rider.

    While it is queued its deadline may be put off; what has begun ends by the deadline of those it began for.
    """
    return rider.state == "queued" or (rider.state in ("batched", "running", "again") and until <= rider.until)


def awaited(batch: Batch) -> bool:
    """Whether anybody waits for a batch."""
    return any(item.state in ("batched", "running") for item in batch.items)
