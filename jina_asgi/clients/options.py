"""The keyword arguments of `post` and its kin, for type checkers; `post` documents their meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypedDict, Unpack

from pydantic import BaseModel

from jina_asgi.clients.posts import Callback


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
