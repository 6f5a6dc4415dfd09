"""The Runner over one Executor in this process.

Synchronous work runs in the Executor's own threads, asynchronous work on the loop; calls run only within the
lifespan, which loads the Executor on entering and finishes what runs on leaving.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from jina_asgi.errors import InvalidDocs, NotReady, UnknownEndpoint
from jina_asgi.executor import Executor, bind
from jina_asgi.runners.admission import Admission
from jina_asgi.runners.bound import BoundMethod
from jina_asgi.runners.threads import ExecutorThreads
from jina_asgi.settings import DeploymentSettings
from jina_asgi.types import Call, Docs, Endpoint, Result, Ticket

_END: Any = object()


class _Activity:
    """One running call or stream: the task now inside it, and whether serving ended under it."""

    __slots__ = ("steps", "stopped", "task")

    def __init__(self, task: asyncio.Task[Any] | None = None) -> None:
        self.task, self.stopped = task, False
        self.steps: AsyncGenerator[Any, None] | None = None


class LocalRunner:
    """An Executor class and its options; the instance lives as long as the lifespan."""

    def __init__(self, uses: type[Executor], settings: DeploymentSettings) -> None:
        self.name, self._uses, self._settings = settings.name, uses, settings
        self._methods = bind(uses, settings.uses_requests)
        self._endpoints = {name: settings.apply_to(method.endpoint) for name, method in self._methods.items()}
        self._bound: dict[str, BoundMethod] = {}
        self._admission = Admission(settings.max_queue, settings.max_queue_bytes)
        self._active: set[_Activity] = set()
        self._idle: asyncio.Event | None = None
        self._state = "stopped"

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        return self._endpoints

    def admit(self, endpoint: str, *, size: int = 0, tenant: str = "", priority: int = 0) -> Ticket:
        if self._state != "ready":
            raise NotReady(f"{self.name} is {self._state}; try again later")
        return self._admission.admit(size)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self._state = "loading"
        try:
            async with ExecutorThreads(self.name, self._settings.threads) as self._threads:
                executor = await self._threads.run(self._load, waits=True)
                try:
                    self._bound = {name: BoundMethod(executor, method) for name, method in self._methods.items()}
                    self._state = "ready"
                    yield
                finally:
                    self._state = "draining"
                    await self._drain()
                    await self._threads.finish(executor.close)
        finally:
            self._bound, self._state = {}, "stopped"

    def _load(self) -> Executor:
        """Make the Executor as Jina does: its facts are set before `__init__`, which is also given them."""
        settings = self._settings
        facts: dict[str, Any] = {
            "metas": settings.uses_metas,
            "runtime_args": {"name": self.name, "workspace": settings.workspace, "shard_id": -1, "replicas": 1},
            "workspace": settings.workspace,
        }
        executor = self._uses.__new__(self._uses)
        executor.describe(**facts)
        takes_all = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(self._uses.__init__).parameters.values())
        self._uses.__init__(executor, **(facts if takes_all else {}), **settings.uses_with)
        executor.warmup()
        return executor

    async def call(self, call: Call, /) -> Result:
        bound = self._find(call.endpoint)
        if bound.kind == "stream":
            raise InvalidDocs(f"{call.endpoint} streams its answer; ask for a stream")
        activity = _Activity(asyncio.current_task())
        self._active.add(activity)
        try:
            docs, parameters = call.docs.typed, bound.parameters(call)
            if bound.is_async:
                value = await bound.run_async(docs, parameters, call)
            else:
                value = await self._threads.run(lambda: bound.run(docs, parameters, call), call.context)
        except BaseException as error:
            if (surfaced := self._surfaced(error, bound, activity, call)) is error:
                raise
            raise surfaced from error
        finally:
            self._ended(activity)
        if type(value) is dict:
            return Result(call.docs, {f"{self.name}/rep-0": value})
        return Result(bound.codec.docs(value))

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        bound = self._find(call.endpoint)
        activity = _Activity()
        self._active.add(activity)
        try:
            docs, parameters = call.docs.typed, bound.parameters(call)
            if len(docs) != 1:
                raise InvalidDocs(f"{call.endpoint} takes one document, got {len(docs)}")
            async with aclosing(self._steps(bound, docs[0], parameters, call)) as activity.steps:
                while not activity.stopped:
                    activity.task = asyncio.current_task()
                    item = await anext(activity.steps, _END)
                    activity.task = None
                    if item is _END and not activity.stopped:
                        return
                    yield bound.codec.docs([bound.document(item)])
            raise NotReady(f"{self.name} stopped before the stream ended")
        except GeneratorExit:
            call.context.cancelled = True
            raise
        except BaseException as error:
            if (surfaced := self._surfaced(error, bound, activity, call)) is error:
                raise
            raise surfaced from error
        finally:
            self._ended(activity)

    async def _steps(self, bound: BoundMethod, doc: Any, parameters: Any, call: Call) -> AsyncGenerator[Any, None]:
        """The user's generator as an asynchronous one, closed before this one is; any other endpoint's docs."""
        arguments = bound.arguments(doc, parameters, call)
        if bound.kind != "stream":
            for answer in (await self.call(call)).docs.typed:
                yield answer
        elif bound.is_async:
            async with aclosing(bound.function(**arguments)) as made:
                async for item in made:
                    yield item
        else:
            made = bound.function(**arguments)  # runs nothing yet
            try:
                while (item := await self._threads.run(lambda: next(made, _END), call.context, waits=True)) is not _END:
                    yield item
            finally:
                await self._threads.finish(made.close)

    def _find(self, endpoint: str) -> BoundMethod:
        if self._state not in ("ready", "draining"):
            raise NotReady(f"{self.name} is {self._state}; calls run only within its lifespan")
        bound = self._bound.get(endpoint) or self._bound.get("/default")
        if bound is None:
            known = ", ".join(self._bound) or "none"
            raise UnknownEndpoint(f"{self.name} has no endpoint {endpoint!r} and no '/default'; it has {known}")
        return bound

    def _surfaced(self, error: BaseException, bound: BoundMethod, activity: _Activity, call: Call) -> BaseException:
        """What a caller is told of `error`: ours as it is, the user's wrapped once, a cancel as one if it was theirs."""
        if not isinstance(error, asyncio.CancelledError):
            return bound.wrapped(error)
        task = asyncio.current_task()
        if activity.stopped:
            if task is not None:
                task.uncancel()
            return NotReady(f"{self.name} stopped before the call ended")
        if task is not None and not task.cancelling():  # nobody cancelled us: the Executor raised it
            return bound.wrapped(error)
        call.context.cancelled = True
        return error

    def _ended(self, activity: _Activity) -> None:
        self._active.discard(activity)
        if self._idle is not None and not self._active:
            self._idle.set()

    async def _drain(self) -> None:
        """Let what runs finish within the grace period, then stop it."""
        if not self._active:
            return
        self._idle = asyncio.Event()
        try:
            async with asyncio.timeout(self._settings.grace):
                await self._idle.wait()
        except TimeoutError:
            for activity in list(self._active):
                activity.stopped = True
                if activity.task is not None:
                    activity.task.cancel()
                elif activity.steps is not None:  # between two steps, its reader away: close what the user wrote
                    await activity.steps.aclose()
                    self._active.discard(activity)
            if self._active:
                await self._idle.wait()
        finally:
            self._idle = None
