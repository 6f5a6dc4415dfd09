"""The options of one call of `post`, and the handling of its answers: callbacks, logging, raising."""

from __future__ import annotations

import base64
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TextIO, TypedDict, Unpack

from pydantic import BaseModel

from jina_asgi.clients.responses import Response, ReturnType, raised
from jina_asgi.concurrency.task_groups import is_async
from jina_asgi.documents.codec import plain
from jina_asgi.errors import JinaASGIError, ReplicaDied
from jina_asgi.errors._shown import safe_repr
from jina_asgi.excepts import BadClientCallback, BadClientInput
from jina_asgi.executors.endpoints import normalised
from jina_asgi.settings.jina_options import without_unknown


@dataclass(frozen=True, slots=True)
class Retries:
    """Jina's retry options: the number of attempts, and delays in seconds."""

    max_attempts: int = 1
    initial_backoff: float = 0.5
    max_backoff: float = 2.0
    backoff_multiplier: float = 1.5

    def wait(self, attempt: int, error: JinaASGIError, draw: Callable[[float, float], float]) -> float:
        """The seconds to wait after attempt number `attempt` (from 1): as in Jina, or as the server's Retry-After says.

        The first delay is `initial_backoff`; the n-th is drawn from 0 to the delay grown by the multiplier. None is
        longer than `max_backoff`.
        """
        grown = self.initial_backoff * self.backoff_multiplier ** (attempt - 1)
        wait = self.initial_backoff if attempt == 1 else draw(0.0, min(grown, self.max_backoff))
        asked: float = getattr(error, "retry_after", 0.0) if error.status == 503 else 0.0
        return min(max(wait, asked), self.max_backoff)


def may_repeat(error: JinaASGIError, *, idempotent: bool) -> bool:
    """Whether a retry is safe: nothing ran, or the endpoint is idempotent."""
    return error.retriable and (idempotent or not isinstance(error, ReplicaDied))


logger = logging.getLogger("jina_asgi")

Callback = Callable[[Response], Any]
_OPTIONS = ("auth", "cookies", "files", "headers", "metadata", "timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """The options that all requests of a call share. `timeout` is in seconds, for each request."""

    on: str
    parameters: Mapping[str, Any]
    target_executor: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    retries: Retries = field(default_factory=Retries)
    returns: ReturnType
    files: Any = None

    @classmethod
    def of(
        cls,
        on: str,
        parameters: Any,
        return_type: Any,
        options: Mapping[str, Any],
        *,
        target_executor: str | None = None,
        retries: Retries | None = None,
    ) -> CallOptions:
        """Builds the options from the arguments of `post` and `stream_doc`.

        Raises:
            BadClientInput: an argument is invalid. TypeError: `options` has an unknown name.
        """
        name = normalised(on)
        if name is None:
            raise BadClientInput(f"on={on!r}: expected an endpoint such as '/encode'")
        return cls(
            on=name,
            parameters=_parameters(parameters),
            target_executor=target_executor,
            headers=_headers(options),
            timeout=options.get("timeout"),
            retries=retries or Retries(),
            returns=ReturnType.of(return_type),
            files=options.get("files"),
        )


@dataclass(frozen=True, slots=True)
class AnswerHandler:
    """Handles the answers of a call."""

    on_done: Callback | None
    on_error: Callback | None
    on_always: Callback | None
    continue_on_error: bool
    return_responses: bool

    def __post_init__(self) -> None:
        for name in ("on_done", "on_error", "on_always"):
            if is_async(getattr(self, name)):
                raise BadClientInput(f"{name} is async; expected a function that is called with each response")

    @property
    def collects(self) -> bool:
        """Whether `post` itself returns the answers; it does not if callbacks take them."""
        return self.on_done is None and self.on_always is None

    def settle(self, response: Response) -> bool:
        """Runs the callbacks; returns whether `post` should return this answer.

        Raises:
            BadServer, BadClient, ConnectionError: the request failed, and no callback takes errors.
            BadClientCallback: a callback raised.
        """
        try:
            if response.error is None:
                self._run(self.on_done, response)
            elif self.on_error is not None:
                self._run(self.on_error, response)
            elif self.continue_on_error:
                logger.error("%s: %s", response.header.exec_endpoint, response.status.description)
            else:
                raise raised(response)
        finally:
            self._run(self.on_always, response)
        return self.return_responses or response.error is None

    def _run(self, callback: Callback | None, response: Response) -> None:
        if callback is None:
            return
        try:
            callback(response)
        except Exception as error:
            name = getattr(callback, "__name__", type(callback).__name__)
            if not self.continue_on_error:
                raise BadClientCallback(f"the callback {name}() raised {safe_repr(error)}") from error
            logger.exception("the callback %s() raised", name)


def _parameters(parameters: Any) -> Mapping[str, Any]:
    if parameters is None:
        return {}
    if isinstance(parameters, BaseModel):
        return plain(parameters)
    if isinstance(parameters, Mapping):
        return parameters
    raise BadClientInput(f"expected a dict or a pydantic model as parameters, got {type(parameters).__name__}")


def _text(value: Any) -> str:
    """A header's value as text; bytes, which gRPC's metadata may hold, in base64."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _headers(options: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a request, from all options that set some; gRPC's metadata is sent as headers."""
    options = without_unknown(options, "post", _OPTIONS)
    unknown = sorted(options.keys() - set(_OPTIONS))
    if unknown:
        raise TypeError(f"got {', '.join(unknown)}; expected options among {', '.join(_OPTIONS)}")
    given = [*dict(options.get("headers") or {}).items(), *dict(options.get("metadata") or ()).items()]
    headers = {str(key).lower(): _text(value) for key, value in given}
    if options.get("cookies"):
        headers["cookie"] = "; ".join(f"{key}={value}" for key, value in dict(options["cookies"]).items())
    if options.get("auth"):
        user, password, *_ = options["auth"]
        headers["authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    return headers


class Progress:
    """Counts and shows progress, as a context manager. On a terminal the line is updated, elsewhere it is written at
    the end.
    """

    def __init__(
        self, *, shown: bool, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shown, self._stream, self._clock = shown, stream or sys.stderr, clock
        self._moves = self._stream.isatty()
        self._requests = self._docs = self._failed = 0
        self._start = 0.0

    def __enter__(self) -> Self:
        self._start = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._stream.write(("\r" if self._moves else "") + self._line() + "\n")
            self._stream.flush()

    def count(self, response: Response) -> None:
        """Counts one answered request."""
        self._requests += 1
        if response.error is None:
            self._docs += len(response.docs)
        else:
            self._failed += 1
        if self._shown and self._moves:
            self._stream.write("\r" + self._line())
            self._stream.flush()

    def _line(self) -> str:
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._requests} requests{failed}, {self._docs} documents, {self._clock() - self._start:.1f} s"


class StreamOptions(TypedDict, total=False):
    """Options of the request that opens a stream."""

    headers: Mapping[str, str] | None
    metadata: Mapping[str, Any] | Sequence[tuple[str, Any]] | None
    auth: tuple[str, str] | None
    cookies: Mapping[str, str] | None
    files: Mapping[str, Any] | None


class RequestOptions(StreamOptions, total=False):
    """Options of every request of a call."""

    timeout: float | None


class AnswerOptions(RequestOptions, total=False):
    """Options of a call that returns the documents of all answers."""

    parameters: Mapping[str, Any] | BaseModel | None
    target_executor: str | None
    request_size: int
    show_progress: bool
    continue_on_error: bool
    max_attempts: int
    initial_backoff: float
    max_backoff: float
    backoff_multiplier: float
    results_in_order: bool
    stream: bool
    prefetch: int | None


class PostOptions(AnswerOptions, total=False):
    """All options of `post`."""

    on_done: Callback | None
    on_error: Callback | None
    on_always: Callback | None
    return_responses: bool
    return_type: Any


class ReadyOptions(TypedDict, total=False):
    """Options of `is_flow_ready`."""

    headers: Mapping[str, str] | None


class PostTo(Protocol):
    """`post` to an endpoint that the method is named after."""

    def __call__(self, inputs: Any = None, *callbacks: Callback | None, **options: Unpack[PostOptions]) -> Any: ...
