"""A circuit breaker for a remote server: refuses calls while it does not answer, except one retry now and then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from jina_asgi.errors import DeadlineExceeded, NotReady, Overloaded, Unavailable
from jina_asgi.runners._breaker import Breaker
from jina_asgi.runners.wrapper import Wrapper
from jina_asgi.types import Call, Docs, Result, Runner


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
