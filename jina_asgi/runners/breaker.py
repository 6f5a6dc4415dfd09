"""A circuit breaker for a remote server: refuses calls while it does not answer, except one retry now and then."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

from jina_asgi.errors import DeadlineExceeded, NotReady, Overloaded, Unavailable
from jina_asgi.runners.wrappers import Wrapper
from jina_asgi.types import Call, Docs, Result, Runner


@dataclass(slots=True)
class Breaker:
    """Opens after so many failures in a row; then one call at a time may try, after a pause that doubles.

    Attributes:
        tolerated: failures in a row after which it opens.
        pause: seconds for which it opens first; twice as many after each try that fails, up to `longest`.
    """

    tolerated: int = 5
    pause: float = 0.5
    longest: float = 30.0
    failures: int = 0
    _until: float = -math.inf
    _trying: bool = False

    @property
    def is_open(self) -> bool:
        return self.failures >= self.tolerated

    def wait(self, now: float) -> float:
        """Return the seconds until a call may try; 0.0 if one may now."""
        if not self.is_open:
            return 0.0
        if self._trying:
            return self.pause
        return max(0.0, self._until - now)

    def begin_try(self) -> bool:
        """Begin a call that `wait` allowed; whether it is the single try of an open breaker."""
        self._trying = self.is_open
        return self._trying

    def succeeded(self) -> None:
        """Record an answer of the server, an error included."""
        self.failures, self._trying = 0, False

    def failed(self, now: float) -> None:
        """Record that the server could not be reached, or was gone before it answered."""
        if self.is_open and not self._trying:
            return  # a call from before the breaker opened
        self.failures, self._trying = self.failures + 1, False
        if self.is_open:
            doublings = min(self.failures - self.tolerated, 30)
            self._until = now + min(self.longest, self.pause * 2.0**doublings)

    def given_up(self) -> None:
        """Record that the try was cancelled or late, which says nothing about the server."""
        self._trying = False


class BreakerRunner(Wrapper):
    """After five calls in a row without an answer, fails the next ones at once.

    `Overloaded` is an answer; an exceeded deadline counts as neither success nor failure.

    Args:
        inner: the Runner that calls the server.
        name: the server's name in errors.
        clock: seconds.
    """

    def __init__(self, inner: Runner, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(inner)
        self._name, self._clock, self._breaker = name, clock, Breaker()

    async def call(self, call: Call, /) -> Result:
        with self._recorded():
            return await self.inner.call(call)

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        with self._recorded():
            async with aclosing(self.inner.stream(call)) as steps:
                async for docs in steps:
                    self._breaker.succeeded()
                    yield docs

    def status(self) -> dict[str, Any]:
        return {**super().status(), "breaker": "open" if self._breaker.is_open else "closed"}

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        breaker = self._breaker
        if wait := breaker.wait(self._clock()):
            raise NotReady(
                f"{self._name} has not answered {breaker.failures} calls in a row; it is called again in {wait:.1f} s",
                retry_after=wait,
            )
        tries = breaker.begin_try()
        try:
            yield
        except (DeadlineExceeded, asyncio.CancelledError, GeneratorExit):
            if tries:
                breaker.given_up()
            raise
        except Unavailable as error:
            if isinstance(error, Overloaded):
                breaker.succeeded()
            else:
                breaker.failed(self._clock())
            raise
        except Exception:
            breaker.succeeded()
            raise
        breaker.succeeded()
