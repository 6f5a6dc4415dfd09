"""A server elsewhere that does not answer is not asked by every call: the breaker refuses, and lets one try now and then."""

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
    """Five calls in a row that find nobody, and the next are told so at once.

    `Overloaded` is an answer; a deadline is the caller's own and says nothing.

    Args:
        inner: what asks the server.
        name: the server, as errors name it.
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
                f"{self._name} has not answered {breaker.failures} calls in a row; it is asked again in {wait:.1f} s",
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
