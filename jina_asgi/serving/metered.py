"""A service that counts its requests, and the page of the metrics of all processes of its server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from types import TracebackType
from typing import Any, Self

from starlette.exceptions import HTTPException

from jina_asgi import errors
from jina_asgi.concurrency.tasks import is_cancel
from jina_asgi.errors import JinaASGIError, NotReady
from jina_asgi.observability import writer
from jina_asgi.observability.figure_file import Sums
from jina_asgi.observability.figures import FIGURES, Figure
from jina_asgi.observability.metrics import IN_FLIGHT, OTHER, REQUEST_BYTES, REQUEST_SECONDS, REQUESTS
from jina_asgi.processes import server_figures
from jina_asgi.protocols.service import CallerLeft, OpenedCall
from jina_asgi.runners.measured import MeasuredRunner
from jina_asgi.runners.wrappers import Wrapper
from jina_asgi.serving.service import RunnerService
from jina_asgi.serving.source import Source
from jina_asgi.settings import AppSettings
from jina_asgi.settings.metrics import MetricsSettings
from jina_asgi.types import Endpoint, Runner, Ticket, resolve


class MeteredService(RunnerService):
    """A service whose requests are counted by endpoint, protocol and outcome."""

    def __init__(
        self,
        source: Source,
        options: AppSettings,
        is_reserved: Callable[[str], bool],
        metrics: MetricsSettings,
        *tracing: Any,
    ) -> None:
        self._name, self._metrics = source.name, metrics  # before the base class wraps its Runner
        super().__init__(source, options, is_reserved, *tracing)
        if options.registry is not None and metrics.has_metrics:
            from jina_asgi.observability.prometheus import join_registry  # with prometheus_client, an extra

            join_registry(options.registry, lambda: writer.WRITER.sums())

    @cached_property
    def _meters(self) -> dict[tuple[str, str], Meter]:
        return {}

    def _wrapped(self, runner: Runner) -> Runner:
        return MeasuredRunner(super()._wrapped(runner), self._name)

    async def open(
        self,
        name: str,
        headers: Mapping[str, str],
        user: Any = None,
        *,
        deadline: float | None = None,
        method: str = "",
    ) -> OpenedCall:
        began = time.perf_counter()
        protocol = _PROTOCOLS.get(method) or protocol_of(method)
        meter = self._meters.get((protocol, name)) or self.meter(protocol, name)
        meter.in_flight.value += 1
        try:
            opened = await super().open(name, headers, user, deadline=deadline, method=method)
        except BaseException as error:
            meter.ended(began, outcome_of(error))
            raise
        call = _MeteredCall(opened, self, protocol, meter, began)
        if meter.endpoint == OTHER:  # its Runner may have loaded meanwhile
            call.named(name)
        return call

    def refused(self, name: str, error: BaseException, method: str) -> None:
        self.meter(protocol_of(method), name).count(outcome_of(error))

    async def metrics_page(self, accept: str) -> tuple[bytes, str]:
        if not self._metrics.has_metrics:
            return await super().metrics_page(accept)
        from jina_asgi.observability.prometheus import rendered  # with prometheus_client, an extra

        with _readable():
            return await asyncio.to_thread(rendered, server_figures.begin().sums, accept)

    async def server_figures(self) -> Sums:
        with _readable():
            return await asyncio.to_thread(server_figures.begin().sums)

    def life_begins(self) -> None:
        server_figures.enter()

    @contextmanager
    def measured(self) -> Iterator[None]:
        with server_figures.measured(self.source.name, Wrapper(self.source.runner), "worker"):
            if not self._metrics.has_own_port:
                yield
                return
            with server_figures.at_own_port(self._metrics.port_monitoring or 0):
                yield

    def life_ends(self) -> None:
        server_figures.end()

    def meter(self, protocol: str, name: str) -> Meter:
        """The meter of the endpoint that answers `name`: that of all unknown names if there is none, or none yet."""
        found = self._meters.get((protocol, name))
        if found is not None:
            return found
        endpoint = None
        with suppress(NotReady):
            endpoint = resolve(self.endpoints, name)
        label = OTHER if endpoint is None else endpoint.name
        found = self._meters.get((protocol, label))
        if found is None:
            found = self._meters[protocol, label] = Meter(self.source.name, label, protocol)
        return found


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotReady(f"the metrics cannot be read: {error.strerror}") from error


def metered_and_traced() -> Callable[..., RunnerService]:
    """The class of a service with spans, whose requests are counted too."""
    from jina_asgi.serving.traced_service import TracedService  # with OpenTelemetry, an extra

    class MeteredTracedService(MeteredService, TracedService):
        """Counts around the spans."""

    return MeteredTracedService


_PROTOCOLS = {"POST": "http", "GET": "http", "websocket": "websocket"}


def protocol_of(method: str) -> str:
    """The protocol of a method as `Service.open` gets it."""
    return _PROTOCOLS.get(method) or ("grpc" if "/" in method else "http")


class Meter:
    """The figures of the requests to one endpoint by one protocol."""

    __slots__ = ("_labels", "_outcomes", "bytes", "endpoint", "in_flight", "ok", "seconds")

    def __init__(self, deployment: str, endpoint: str, protocol: str) -> None:
        self._labels, self.endpoint = (deployment, endpoint, protocol), endpoint
        self.in_flight = FIGURES.figure(IN_FLIGHT, *self._labels)
        self.seconds = FIGURES.histogram(REQUEST_SECONDS, *self._labels)
        self.bytes = FIGURES.histogram(REQUEST_BYTES, *self._labels)
        self.ok = FIGURES.figure(REQUESTS, *self._labels, "ok")
        self._outcomes: dict[str, Figure] = {}

    def count(self, outcome: str) -> None:
        found = self._outcomes.get(outcome)
        if found is None:
            found = self._outcomes[outcome] = FIGURES.figure(REQUESTS, *self._labels, outcome)
        found.value += 1

    def ended(self, began: float, outcome: str) -> None:
        self.in_flight.value -= 1
        self.seconds.observe(time.perf_counter() - began)
        if outcome:
            self.count(outcome)
        else:
            self.ok.value += 1


class _MeteredCall:
    """An opened call whose end is counted."""

    __slots__ = (
        "_began",
        "_meter",
        "_opened",
        "_outcome",
        "_protocol",
        "_service",
        "_size",
        "admit",
        "context",
        "loop",
        "runner",
    )

    def __init__(self, opened: OpenedCall, service: MeteredService, protocol: str, meter: Meter, began: float) -> None:
        self._opened, self._service, self._protocol, self._meter, self._began = opened, service, protocol, meter, began
        self._outcome, self._size = "", 0
        self.runner, self.context, self.loop, self.admit = opened.runner, opened.context, opened.loop, opened.admit

    def __enter__(self) -> Self:
        self._opened.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._meter.ended(self._began, self._outcome if error is None else outcome_of(error))
        self._meter.bytes.observe(self._size)
        self._opened.__exit__(kind, error, trace)

    @property
    def endpoint(self) -> Endpoint | None:
        return self._opened.endpoint

    def resize(self, size: int) -> None:
        self._size = size
        self._opened.resize(size)

    def detach(self) -> Ticket | None:
        return self._opened.detach()

    def named(self, endpoint: str) -> None:
        self._opened.named(endpoint)
        self._meter.in_flight.value -= 1
        self._meter = self._service.meter(self._protocol, endpoint)
        self._meter.in_flight.value += 1

    def failed(self, error: BaseException) -> None:
        self._opened.failed(error)
        self._outcome = outcome_of(error)


def outcome_of(error: BaseException) -> str:
    """The outcome of a request that ended with an error: the name of its nearest public class, or "cancelled"."""
    if isinstance(error, CallerLeft | GeneratorExit) or is_cancel(error):
        return "cancelled"
    if isinstance(error, JinaASGIError):
        return next(name for base in type(error).__mro__ if vars(errors).get(name := base.__name__) is base)
    return "ExecutorHTTPError" if isinstance(error, HTTPException) else "ExecutorError"
