"""A service that logs a line for each call, by `access_log`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Self

import msgspec

from jina_asgi.observability.access_log import CallRecord, log_call
from jina_asgi.protocols.service import OpenedCall
from jina_asgi.runners.wrappers import Wrapper
from jina_asgi.serving.metered import outcome_of, protocol_of
from jina_asgi.serving.service import RunnerService
from jina_asgi.types import Call, Docs, Endpoint, Result, Runner, Ticket


def logging_calls(kind: Any) -> Callable[..., RunnerService]:
    """Derives a class from one of a service, whose calls are logged."""

    class LoggedService(kind):  # type: ignore[misc]  # what it is depends on the options
        logs_calls = True

        def _wrapped(self, runner: Runner) -> Runner:
            return _RecordRunner(super()._wrapped(runner))

        async def open(
            self,
            name: str,
            headers: Mapping[str, str],
            user: Any = None,
            *,
            deadline: float | None = None,
            method: str = "",
        ) -> OpenedCall:
            record = CallRecord()
            try:
                opened: OpenedCall = await super().open(name, headers, user, deadline=deadline, method=method)
            except BaseException as error:
                log_call(name, protocol_of(method), outcome_of(error), record)
                raise
            opened.context.record = record
            return _LoggedCall(opened, name, protocol_of(method), record)

        def refused(self, name: str, error: BaseException, method: str) -> None:
            super().refused(name, error, method)
            log_call(name, protocol_of(method), outcome_of(error), CallRecord())

    return LoggedService


class _RecordRunner(Wrapper):
    """Records when each call begins to run."""

    def call(self, call: Call, /) -> Coroutine[Any, Any, Result]:
        return self.inner.call(_recorded(call))

    def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        return self.inner.stream(_recorded(call))


def _recorded(call: Call) -> Call:
    record = call.context.record
    if record is None:
        return call

    def begin() -> Docs:
        record.begin()
        return call.begin()

    return msgspec.structs.replace(call, on_begin=begin)


class _LoggedCall:
    """An opened call whose end is logged."""

    __slots__ = ("_name", "_opened", "_outcome", "_protocol", "_record", "context", "loop", "runner")

    def __init__(self, opened: OpenedCall, name: str, protocol: str, record: CallRecord) -> None:
        self._opened, self._name, self._protocol, self._record, self._outcome = opened, name, protocol, record, "ok"
        self.runner, self.context, self.loop = opened.runner, opened.context, opened.loop

    def __enter__(self) -> Self:
        self._opened.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outcome = self._outcome if error is None else outcome_of(error)
        log_call(self._name, self._protocol, outcome, self._record, self.context.identity)
        self._opened.__exit__(kind, error, trace)

    @property
    def endpoint(self) -> Endpoint | None:
        return self._opened.endpoint

    def admit(self, size: int) -> None:
        self._record.size = size
        self._opened.admit(size)

    def resize(self, size: int) -> None:
        self._record.size = size
        self._opened.resize(size)

    def detach(self) -> Ticket | None:
        return self._opened.detach()

    def named(self, endpoint: str) -> None:
        self._name = endpoint
        self._opened.named(endpoint)

    def failed(self, error: BaseException) -> None:
        self._outcome = outcome_of(error)
        self._opened.failed(error)
