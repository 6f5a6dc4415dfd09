"""The keyword arguments of `post` as type checkers see them; what each means is said by `Client.post`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from pydantic import BaseModel

from jina_asgi.clients.posts import Callback


class StreamOptions(TypedDict, total=False):
    """Of the request that a stream begins with."""

    headers: Mapping[str, str] | None
    metadata: Mapping[str, Any] | Sequence[tuple[str, Any]] | None
    auth: tuple[str, str] | None
    cookies: Mapping[str, str] | None
    files: Mapping[str, Any] | None


class RequestOptions(StreamOptions, total=False):
    """Of every request of one call."""

    timeout: float | None


class AnswerOptions(RequestOptions, total=False):
    """With which a call itself gives the documents of all answers."""

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
    """All, in words."""

    on_done: Callback | None
    on_error: Callback | None
    on_always: Callback | None
    return_responses: bool
    return_type: Any
