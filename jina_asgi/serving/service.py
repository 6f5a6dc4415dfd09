"""Implements the `Service` for protocols: a source's Runner and endpoints, and the opening of calls."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from jina_asgi.concurrency.task_groups import maybe_await
from jina_asgi.documents import field_plans, upload_files
from jina_asgi.errors import DeadlineExceeded, NotReady, Unauthenticated, UnknownEndpoint
from jina_asgi.observability.current_call import CURRENT, WATCH, CurrentCall
from jina_asgi.protocols.problems import Headers, problem
from jina_asgi.protocols.service import OpenedCall
from jina_asgi.runners.wrappers import Wrapper
from jina_asgi.serving.service_lifecycle import ServiceLifecycle
from jina_asgi.serving.source import Source
from jina_asgi.settings import AppSettings
from jina_asgi.types import Context, Endpoint, Runner, Ticket, resolve

if TYPE_CHECKING:
    from jina_asgi.observability.figure_file import Sums  # for POSIX, and not imported without figures

logger = logging.getLogger("jina_asgi")


class RunnerService(ServiceLifecycle):
    """Implements `protocols.service.Service` for one source. Without a lifespan it loads with the first call.

    Args:
        source: the served source.
        options: those of the application.
        is_reserved: whether a path belongs to the application itself, and cannot be an endpoint.
    """

    #: Whether each call is logged.
    logs_calls = False

    def __init__(self, source: Source, options: AppSettings, is_reserved: Callable[[str], bool]) -> None:
        super().__init__(_TrackedRunner(self._wrapped(source.runner), self), options.startup_wait, source.group)
        self.source, self.options = source, options
        self.limits, self.expose_errors = options.limits, options.expose_errors
        self._source_name = source.name
        self._auth, self._is_reserved = options.auth, is_reserved
        self.has_auth = options.auth is not None
        self._all: Mapping[str, Endpoint] | None = (
            None  # of the source; `_served` has those that are not on reserved paths
        )
        self._served: Mapping[str, Endpoint] = {}
        self._current_endpoints: Mapping[str, Endpoint] | None = None
        self.endpoints_begin()
        self._is_late = self._current_endpoints is None

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        if self._current_endpoints is None:
            found = self._unreserved()
            if self.state != "ready":
                return found
            self._current_endpoints = found
        return self._current_endpoints

    def current_endpoints(self) -> Mapping[str, Endpoint] | None:
        if self._is_late and self._current_endpoints is not None:  # they may change while they are served
            self._current_endpoints = self._unreserved()
        return self._current_endpoints

    async def loaded(self) -> Mapping[str, Endpoint]:
        if self._current_endpoints is None:
            await self.runner()
            self._current_endpoints = self._unreserved()
        return self._current_endpoints

    async def authenticate(self, name: str, headers: Mapping[str, str], user: Any = None) -> Any:
        auth = self._auth
        if auth is None:
            return user
        identity = await maybe_await(auth(headers, name))
        if identity is None:
            raise Unauthenticated(
                "not authenticated; send the credentials that this service asks for, as headers or metadata"
            )
        return identity

    async def open(
        self,
        name: str,
        headers: Mapping[str, str],
        user: Any = None,
        *,
        deadline: float | None = None,
        method: str = "",
    ) -> OpenedCall:
        identity = user if self._auth is None else await self.authenticate(name, headers)
        life, loop = self._life, asyncio.get_running_loop()
        if life is not None and life.state == "ready" and life.loop is loop:
            runner = self._runner  # as `self.runner` does, without another coroutine
        else:
            runner = await self.runner(deadline)
        context = Context("", headers=headers, deadline=deadline, identity=identity)
        if not WATCH.on:
            return ServiceCall(name, runner, context, loop)
        opened = ServiceCall(name, runner, context, loop, _is_current=True, _before=CURRENT.get())
        CURRENT.set((context, self._source_name))
        return opened

    def refused(self, name: str, error: BaseException, method: str) -> None:
        """Nothing is counted here; `metered` does."""

    async def metrics_page(self, accept: str) -> tuple[bytes, str]:
        """The metrics of the whole server for Prometheus, in a format that the header `Accept` allows, and its media type.

        Raises:
            UnknownEndpoint: the option `metrics` is not set.
        """
        raise UnknownEndpoint("Not Found")

    async def server_figures(self) -> Sums:
        """The figures of all processes of the server; empty if none are written, as in an application without `metered`.

        Raises:
            NotReady: they cannot be read now.
        """
        return {}

    def problem(self, error: BaseException) -> tuple[int, dict[str, Any], Headers]:
        return problem(error, expose=self.expose_errors)

    def life_begins(self) -> None:
        """Called before the Runner loads; `metered` begins to write its figures."""

    def measured(self) -> AbstractContextManager[None]:
        """Entered when the Runner has loaded, and left before it is unloaded."""
        return nullcontext()

    def life_ends(self) -> None:
        """Called when the Runner has been unloaded."""

    def endpoints_begin(self) -> None:
        """Called when the Runner has loaded: its endpoints are known now, or soon."""
        with suppress(NotReady):
            self._current_endpoints = self._unreserved()

    def endpoints_end(self) -> None:
        """Called when the Runner is unloaded; it may load again with other endpoints."""
        if self._is_late:
            self._current_endpoints = None

    def remove_stale_uploads(self) -> None:
        """Remove uploaded files of killed processes, if an endpoint takes uploads as files."""
        with suppress(NotReady):
            if any(field_plans.takes_paths(endpoint.input) for endpoint in self.endpoints.values()):
                upload_files.sweep()

    def _wrapped(self, runner: Runner) -> Runner:
        """The Runner that answers the calls of this service."""
        return runner

    def _unreserved(self) -> Mapping[str, Endpoint]:
        """The endpoints that are not on reserved paths. An Executor class here is refused for such endpoints, but an external
        server may have them.

        Raises:
            NotReady: the source's endpoints are not known yet.
        """
        found = self.source.endpoints
        if self._all is not found:
            self._all, self._served = found, dict(self._on_free_paths(found))
        return self._served

    def _on_free_paths(self, endpoints: Mapping[str, Endpoint]) -> Iterator[tuple[str, Endpoint]]:
        for name, endpoint in endpoints.items():
            if self._is_reserved(name):
                logger.warning("%s: the endpoint %r is reserved, and is not served here", self.source.name, name)
            else:
                yield name, endpoint


class ServiceCall(msgspec.Struct, eq=False):
    """Implements `protocols.service.OpenedCall`: admission and the check of the deadline.

    Where log lines name calls it is the current one of its task until it is left; a failed one remains so, as the protocol
    then logs its error.
    """

    name: str
    runner: Runner
    context: Context
    loop: asyncio.AbstractEventLoop
    _ticket: Ticket | None = None
    _size: int = 0
    _is_current: bool = False
    _before: CurrentCall | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ticket is not None:
            self._ticket.close()
        if self._is_current and kind is None:
            CURRENT.set(self._before)

    def named(self, endpoint: str) -> None:
        """Nothing is counted here; `metered` does."""

    def failed(self, error: BaseException) -> None:
        """Nothing is counted here; `metered` does."""

    @property
    def endpoint(self) -> Endpoint | None:
        return resolve(self.runner.endpoints, self.name)

    def admit(self, size: int) -> None:
        if (ticket := self._ticket) is not None:
            self._ticket = None
            ticket.close()
        self._ticket, self._size = self.runner.admit(self.name, size=size), size

    def resize(self, size: int) -> None:
        if self._ticket is None or size > self._size:
            self.admit(size)
        until = self.context.deadline
        if until is not None and time.monotonic() >= until:
            raise DeadlineExceeded(f"the deadline of this call to {self.name} has passed")

    def detach(self) -> Ticket | None:
        ticket, self._ticket = self._ticket, None
        return ticket


class _TrackedRunner(Wrapper):
    """Notifies a service when its Runner has loaded, and when it is unloaded."""

    def __init__(self, inner: Runner, service: RunnerService) -> None:
        super().__init__(inner)
        self._service = service

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        return self._endpoints_source.endpoints

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self._service.source.configure_log(with_access=self._service.logs_calls)
        self._service.life_begins()
        try:
            async with self.inner.lifespan():
                self._service.endpoints_begin()
                self._service.remove_stale_uploads()
                try:
                    with self._service.measured():
                        yield
                finally:
                    self._service.endpoints_end()
        finally:
            self._service.life_ends()
