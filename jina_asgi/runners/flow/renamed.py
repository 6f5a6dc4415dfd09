"""Renames a node in `__results__` and in the trail to its name in the Flow."""

from __future__ import annotations

from jina_asgi.runners.wrapper import Wrapper
from jina_asgi.types import Call, Result, Runner, Step


class RenamedRunner(Wrapper):
    """Replaces a Runner's own name `own` by `name` in its results."""

    def __init__(self, inner: Runner, own: str, name: str) -> None:
        super().__init__(inner)
        self._own, self._name = own, name

    async def call(self, call: Call, /) -> Result:
        result = await self.inner.call(call)
        results = {self._renamed(key): value for key, value in result.results.items()} if result.results else {}
        trail = [Step(self._renamed(step.name), step.start, step.end, step.error) for step in result.trail]
        return Result(result.docs, results, tuple(trail))

    def _renamed(self, key: str) -> str:
        first, slash, rest = key.partition("/")
        return f"{self._name}{slash}{rest}" if first == self._own else key


def unwrap_renamed(runner: Runner) -> Runner:
    """Return the Runner inside a RenamedRunner, else the Runner itself: several nodes may share one."""
    return runner.inner if isinstance(runner, RenamedRunner) else runner
