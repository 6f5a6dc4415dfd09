"""The options of one call of `post`, and the handling of its answers: callbacks, logging, raising."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from jina_asgi.clients._retries import Retries
from jina_asgi.clients.responses import Response, ReturnType, raised
from jina_asgi.concurrency.hooks import is_async
from jina_asgi.documents.codec import plain
from jina_asgi.errors._shown import safe_repr
from jina_asgi.excepts import BadClientCallback, BadClientInput
from jina_asgi.executors.endpoints import normalised
from jina_asgi.settings.jina_options import without_unknown

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
