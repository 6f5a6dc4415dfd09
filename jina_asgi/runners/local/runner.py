"""The Runner over one Executor in this process.

Synchronous work runs in the Executor's own threads, asynchronous work on the loop; calls run only within the
lifespan, which loads the Executor on entering and finishes what runs on leaving.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from jina_asgi.concurrency.lifecycle import PATIENCE, RUNNING, Lifecycle
from jina_asgi.concurrency.offload import LARGE, parse_in_thread
from jina_asgi.concurrency.process_wide import LoadLock, end_if_forked
from jina_asgi.concurrency.tasks import (
    cancel_requests,
    log_failure,
    mark_retrieved,
    start_task,
    uncancel,
    wait_until_done,
)
from jina_asgi.errors import InvalidDocs, NotReady, UnknownEndpoint, interrupted_error
from jina_asgi.errors._raised import is_a
from jina_asgi.executors.decorators import timings
from jina_asgi.executors.endpoints import Method
from jina_asgi.executors.executor import Executor, bind, make
from jina_asgi.runners.admission import Admission
from jina_asgi.runners.local import executor_lifecycle
from jina_asgi.runners.local.executor_lifecycle import HealthWatch, runtime_args
from jina_asgi.runners.local.method import BoundMethod, steps_in_thread
from jina_asgi.runners.local.threads import ExecutorThreads
from jina_asgi.settings import DeploymentSettings
from jina_asgi.types import EMPTY, Call, Docs, Endpoint, Result, Ticket

if TYPE_CHECKING:
    from jina_asgi.observability.tracing import Tracing  # with OpenTelemetry, an extra

logger = logging.getLogger("jina_asgi")


class _RunningCall(msgspec.Struct, eq=False):
    """A running call or stream: its current task, whether user code has begun, and whether serving ended."""

    task: asyncio.Task[Any] | None = None
    begun: bool = False
    stopped: bool = False
    steps: AsyncGenerator[Any, None] | None = None
    _closed: asyncio.Future[None] | None = None

    def mark_begun(self) -> None:
        self.begun = True

    async def close(self) -> None:
        """Close the user's generator in the task of the first caller; later callers wait for it."""
        if self.steps is None:
            return
        if self._closed is not None:
            await asyncio.shield(self._closed)
            return
        self._closed = asyncio.get_running_loop().create_future()
        try:
            await self.steps.aclose()
        finally:
            self._closed.set_result(None)


class LocalRunner:
    """Runs an Executor in this process; its instance lives as long as the lifespan.

    `replica` is the replica's number; `batching` has the batching settings of its endpoints. `loaded` is called each
    time the Executor has loaded. `tracing` is what the Executor's own spans are made by.
    """

    def __init__(
        self,
        uses: type[Executor],
        settings: DeploymentSettings,
        *,
        replica: int = 0,
        batching: Mapping[str, Mapping[str, Any]] = EMPTY,
        loaded: Callable[[], None] = lambda: None,
        tracing: Tracing | None = None,
    ) -> None:
        self._tracing = tracing
        self.name, self._uses, self._settings = settings.name, uses, settings
        self._replica, self._loaded = replica, loaded
        self._methods = bind(uses, settings.uses_requests)
        self._endpoints = {
            name: replace(settings.apply_to(method.endpoint), batching=batching.get(name))
            for name, method in self._methods.items()
        }
        self._bound: dict[str, BoundMethod] = {}  # empty unless calls run
        self._executor: Executor | None = None
        self._health: HealthWatch | None = None
        self._admission = Admission(settings.max_queue, settings.max_queue_bytes)
        self._active: set[_RunningCall] = set()
        self._life = Lifecycle(settings.grace)

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        return self._endpoints

    def admit(self, endpoint: str, *, size: int = 0) -> Ticket:
        if self._life.state != "ready":
            raise NotReady.in_state(self.name, self._life.state)
        return self._admission.admit(size)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self._loop, self._process = asyncio.get_running_loop(), os.getpid()
        with self._life.running():
            try:
                async with ExecutorThreads(self.name, self._settings.threads) as self._threads:
                    lock = LoadLock()
                    try:
                        executor = await executor_lifecycle.load_executor(lambda: self._load(lock), self._threads)
                    finally:
                        lock.release()  # also if the caller has left
                    self._health = HealthWatch(executor, self.name)
                    async with self._life.ending(partial(self._unload, executor, self._health)):
                        await self._health.begin()
                        self._loaded()
                        self._bound = {name: self._bind(executor, method) for name, method in self._methods.items()}
                        self._life.state = "ready"
                        yield
            finally:
                self._bound, self._executor, self._health = {}, None, None  # frees what it loaded

    def _load(self, lock: LoadLock) -> Executor:
        settings = self._settings
        self._executor = make(
            self._uses,
            settings.uses_with,
            metas=settings.uses_metas,
            requests=settings.uses_requests,
            runtime_args={**runtime_args(settings, self._replica), **self._providers()},
            workspace=settings.workspace,
            load_lock=lock,
        )
        return self._executor

    def _providers(self) -> dict[str, Any]:
        return {} if self._tracing is None else {"tracer_provider": self._tracing.provider}

    def _bind(self, executor: Executor, method: Method) -> BoundMethod:
        if self._tracing is None:
            return BoundMethod(executor, method)
        return BoundMethod(executor, method, self._tracing.context_of)

    def slots(self, endpoint: str) -> tuple[int, int]:
        """Return how many batches of an endpoint run at once, and how many more may wait here for a thread."""
        return (1, 0) if self._methods[endpoint].is_async else (self._settings.threads, 1)

    @property
    def stuck(self) -> float:
        """The seconds for which all threads have been in abandoned calls; 0 if one is free."""
        return self._threads.stuck

    def unhealthy_reason(self) -> str:
        """Return why the Executor cannot answer, by its last `health` check; '' if it can."""
        return "" if self._health is None else self._health.unhealthy_reason

    def status(self) -> dict[str, Any]:
        """Return the metrics of the queue, and those of the Executor itself, for `/-/status`."""
        monitored = timings(self._executor)
        return {"queue": self._admission.status(), **({"monitored": monitored} if monitored else {})}

    async def call(self, call: Call, /) -> Result:
        bound = self._bound.get(call.endpoint) or self._find(call.endpoint)
        if bound.kind == "stream":
            raise InvalidDocs(f"{call.endpoint} streams its answer; ask for a stream")
        running = _RunningCall(asyncio.current_task(self._loop))
        self._active.add(running)
        try:
            parameters = bound.parameters(call) if call.parameters or bound.has_parameters else {}
            if bound.is_async:
                docs = call.begin()
                typed = await _decoded(docs) if docs.objects is None else docs.objects
                running.begun = True
                if bound.takes_docs_only:  # the common case
                    value = bound.checked_answer(await bound.function(docs=typed), typed)
                else:
                    value = await bound.run_async(typed, parameters, call)
                end_if_forked(self._process)
            else:
                work = partial(bound.run, parameters, call)
                value = await self._threads.run(work, call.context, on_left=running.mark_begun)
        except BaseException as error:
            self._raise_public(error, bound, running, call)
            raise
        finally:
            self._call_ended(running)
        if type(value) is dict:
            return Result(call.docs, {f"{self.name}/rep-{self._replica}": value})
        return Result(Docs(bound.codec, value))

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        bound = self._find(call.endpoint)
        running = _RunningCall(asyncio.current_task(self._loop))
        self._active.add(running)
        try:
            docs = call.begin()
            typed = await _decoded(docs) if docs.objects is None else docs.objects
            parameters = bound.parameters(call)
            if len(typed) != 1:
                raise InvalidDocs(f"{call.endpoint} takes one document, got {len(typed)}")
            running.begun = bound.is_async
            running.steps = self._steps(bound, typed[0], parameters, call, running)
            try:
                async for item in running.steps:
                    end_if_forked(self._process)
                    running.task, running.begun = None, True
                    yield Docs(bound.codec, [bound.checked_document(item)])
                    running.task = asyncio.current_task(self._loop)
                    if running.stopped:
                        break
            finally:
                await running.close()
            end_if_forked(self._process)
            if running.stopped:
                raise interrupted_error(f"{self.name} is draining: it stopped", begun=running.begun)
        except BaseException as error:
            if is_a(error, GeneratorExit) and running.task is None:  # not raised by user code
                call.context.cancelled = True
                raise
            self._raise_public(error, bound, running, call)
            raise
        finally:
            self._call_ended(running)

    def _steps(
        self, bound: BoundMethod, doc: Any, parameters: Any, call: Call, running: _RunningCall
    ) -> AsyncGenerator[Any, None]:
        """Return the user's async generator, or one that runs its sync generator in a thread or yields a call's docs."""
        if bound.kind != "stream":
            return self._answers(call)
        made = bound.function(**bound.arguments(doc, parameters, call))  # runs nothing yet
        if not bound.is_async:
            stopped = partial(getattr, running, "stopped")
            made = steps_in_thread(self._threads, bound, made, call.context, stopped, running.mark_begun)
        steps: AsyncGenerator[Any, None] = made
        return steps

    async def _answers(self, call: Call) -> AsyncGenerator[Any, None]:
        for answer in (await self.call(call)).docs.typed:
            yield answer

    def _find(self, endpoint: str) -> BoundMethod:
        if self._life.state not in RUNNING:
            raise NotReady.in_state(self.name, self._life.state)
        bound = self._bound.get(endpoint) or self._bound.get("/default")
        if bound is None:
            raise UnknownEndpoint.of(self.name, endpoint, self._bound)
        return bound

    def _raise_public(self, error: BaseException, bound: BoundMethod, running: _RunningCall, call: Call) -> None:
        """Raise what the caller gets in place of `error`: the user's errors wrapped once; return for those that pass.

        No frame of a traceback names the error that is raised: such a cycle would keep the whole call until a full
        garbage collection.
        """
        end_if_forked(self._process, error)
        if not is_a(error, asyncio.CancelledError):
            surfaced = bound.wrap_error(error)
            try:
                if surfaced is not error:
                    raise surfaced from error
                return
            finally:
                del surfaced
        if running.stopped:
            uncancel()
            raise interrupted_error(f"{self.name} is draining: it stopped", begun=running.begun) from error
        if not cancel_requests():  # the Executor raised it itself
            raise bound.wrap_error(error) from error
        call.context.cancelled = True

    def _call_ended(self, running: _RunningCall) -> None:
        self._active.discard(running)
        running.task = None  # breaks a cycle: task, error, traceback, frame, this
        if not self._active and self._life.state != "ready":
            self._life.idle.set()

    async def _unload(self, executor: Executor, health: HealthWatch) -> None:
        """Wait for running calls within the grace period, then stop them, then close the Executor.

        If it is hurried, what cannot be cancelled is abandoned after a moment.
        """
        last_look = health.ending()
        if not await self._life.drain(self._active):
            stopping = start_task(self._stop(), log_failure(f"stopping what runs in {self.name}"))
            await self._life.finish(stopping)
            stopping.cancel()
        if last_look is not None:
            await self._life.finish(last_look, PATIENCE)
        closing = start_task(executor_lifecycle.close_executor(executor, self._threads), mark_retrieved)
        await self._life.finish(closing)
        try:
            if closing.done():
                closing.result()
        finally:
            del closing  # its error's traceback holds this frame

    async def _stop(self) -> None:
        """Stop the running calls, and wait until they have ended."""
        unread, tasks = list[_RunningCall](), set[asyncio.Task[Any]]()
        for running in self._active:
            running.stopped = True
            if running.task is not None:
                tasks.add(running.task)  # a call and the stream of its answer have the same one
            elif running.steps is not None:  # between two steps, without a reader: close the user's generator
                unread.append(running)
        for task in tasks:
            task.cancel()
        await wait_until_done([start_task(running.close(), partial(self._closed, running)) for running in unread])
        await self._life.idle.wait()

    def _closed(self, running: _RunningCall, task: asyncio.Task[None]) -> None:
        self._call_ended(running)
        log_failure(f"closing a stream of {self.name}")(task)


async def _decoded(docs: Docs) -> list[Any]:
    """Return `docs.typed`, read in the codec thread if decoding so many bytes would hold the event loop."""
    if sum(map(len, docs.encoded)) <= LARGE:
        return docs.typed
    return await parse_in_thread(None, lambda: docs.typed)
