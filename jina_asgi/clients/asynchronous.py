"""The asynchronous Client: `post` is an async generator of one result a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partialmethod
from typing import Any, Self, TypeVar, Unpack, overload

from pydantic import BaseModel

from jina_asgi.clients._retries import Retries
from jina_asgi.clients.base import BaseClient
from jina_asgi.clients.inputs import async_batches, the_document
from jina_asgi.clients.options import AnswerOptions, PostTo, ReadyOptions, RequestOptions, StreamOptions
from jina_asgi.clients.posts import AnswerHandler, Callback, CallOptions
from jina_asgi.clients.progress import Progress
from jina_asgi.clients.window import async_answers

L = TypeVar("L", bound=list[Any])
M = TypeVar("M", bound=BaseModel)


class AsyncClient(BaseClient):
    """The asynchronous Client, from `Client(asyncio=True)`; it may be used on several event loops at the same time."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections of this event loop. A later call opens new ones."""
        connection = self._connections.pop(asyncio.get_running_loop(), None)
        if connection is not None:
            await connection.close()

    @overload
    def post(
        self, on: str, inputs: Any = None, *, return_type: type[L], **options: Unpack[AnswerOptions]
    ) -> AsyncGenerator[L, None]: ...
    @overload
    def post(
        self, on: str, inputs: BaseModel, *, return_type: type[M], **options: Unpack[AnswerOptions]
    ) -> AsyncGenerator[M, None]: ...
    @overload
    def post(
        self, on: str, inputs: Any = None, *, return_type: type[M], **options: Unpack[AnswerOptions]
    ) -> AsyncGenerator[M | list[M], None]: ...
    @overload
    def post(
        self,
        on: str,
        inputs: Any = None,
        on_done: Callback | None = None,
        on_error: Callback | None = None,
        on_always: Callback | None = None,
        *,
        return_responses: bool = False,
        return_type: Any = None,
        **options: Unpack[AnswerOptions],
    ) -> AsyncGenerator[Any, None]: ...
    async def post(
        self,
        on: str,
        inputs: Any = None,
        on_done: Callback | None = None,
        on_error: Callback | None = None,
        on_always: Callback | None = None,
        parameters: Mapping[str, Any] | BaseModel | None = None,
        target_executor: str | None = None,
        request_size: int = 100,
        show_progress: bool = False,
        continue_on_error: bool = False,
        return_responses: bool = False,
        max_attempts: int = 1,
        initial_backoff: float = 0.5,
        max_backoff: float = 2,
        backoff_multiplier: float = 1.5,
        results_in_order: bool = False,
        stream: bool = True,
        prefetch: int | None = None,
        return_type: Any = None,
        **options: Unpack[RequestOptions],
    ) -> AsyncGenerator[Any, None]:
        """Calls an endpoint, and yields the documents of each request as they come.

        Args:
            on: the endpoint.
            inputs: as of a synchronous Client, or an async generator of documents.
            on_done: called with the response of each request that succeeded.
            on_error: called with the response of each request that failed; without it, and without `continue_on_error`, a
                failed request raises.
            on_always: called with the response of each request, after the other callbacks.
            parameters: for the endpoint: a dict or a pydantic model.
            target_executor: a regular expression of the names of the Flow's Executors that should run.
            request_size: documents in a request; 0 or less sends all in one.
            show_progress: show the number of finished requests on stderr.
            continue_on_error: log failed requests, and continue.
            return_responses: yield responses, with `docs`, `parameters`, `header`, `routes` and `status`.
            max_attempts: how often a request is sent at most. It is retried if nothing ran (the server was not
                reachable, overloaded or loading), and if the server says that another attempt may succeed.
            initial_backoff, max_backoff, backoff_multiplier: the seconds between attempts, as in Jina.
            results_in_order: yield answers in the order of their requests, not as they come.
            stream: has an effect over gRPC only.
            prefetch: how many requests are open at the same time; inputs are not read further ahead.
            return_type: `DocList[T]`, `list[T]`, or a document class; without it documents have any fields.
                `numpy.ndarray`: the one tensor that each document has, those of a request in one array, in order.
            options: `files` (by field: a path, bytes, an open file, (name, content), or a list of these; sent with each
                request as a form, over HTTP), `timeout` (seconds, for each request), `headers`, `metadata` (sent as
                headers), `auth` (a user and a password), `cookies`.

        Yields:
            For each request a list of documents, or the one document where `return_type` is a class and there is one;
            with `return_responses` its response.

        Raises:
            BadClient: no such endpoint; an answer that does not fit `return_type`.
            BadClientInput: invalid inputs, or an invalid option.
            BadClientCallback: a callback raised.
            BadServer: the server answered with an error.
            ConnectionError: the server cannot be reached, is overloaded, or the deadline passed.
        """
        retries = Retries(max_attempts, initial_backoff, max_backoff, backoff_multiplier)
        call = CallOptions.of(on, parameters, return_type, options, target_executor=target_executor, retries=retries)
        handling = AnswerHandler(
            on_done=on_done,
            on_error=on_error,
            on_always=on_always,
            continue_on_error=continue_on_error,
            return_responses=return_responses,
        )
        ahead = self._ahead(prefetch)
        connection = self._connection(asyncio.get_running_loop())
        with Progress(shown=show_progress) as progress:
            responses = async_answers(
                async_batches(inputs, request_size),
                lambda docs: connection.ask(docs, call),
                ahead=ahead,
                in_order=results_in_order or call.returns.is_array,
            )
            async with aclosing(responses):
                async for response in responses:
                    progress.count(response)
                    if handling.settle(response):
                        yield response if return_responses else call.returns.given(response.docs)

    index: PostTo = partialmethod(post, "/index")
    search: PostTo = partialmethod(post, "/search")
    update: PostTo = partialmethod(post, "/update")
    delete: PostTo = partialmethod(post, "/delete")

    @overload
    def stream_doc(
        self,
        on: str,
        inputs: BaseModel,
        parameters: Mapping[str, Any] | BaseModel | None = None,
        *,
        return_type: type[M],
        timeout: float | None = None,
        **options: Unpack[StreamOptions],
    ) -> AsyncGenerator[M, None]: ...
    @overload
    def stream_doc(
        self,
        on: str,
        inputs: BaseModel,
        parameters: Mapping[str, Any] | BaseModel | None = None,
        return_type: None = None,
        timeout: float | None = None,
        **options: Unpack[StreamOptions],
    ) -> AsyncGenerator[Any, None]: ...
    async def stream_doc(
        self,
        on: str,
        inputs: BaseModel,
        parameters: Mapping[str, Any] | BaseModel | None = None,
        return_type: Any = None,
        timeout: float | None = None,
        **options: Unpack[StreamOptions],
    ) -> AsyncGenerator[Any, None]:
        """Calls a streaming endpoint with one document, and yields its documents as they come.

        Closing the generator stops the server's work. Arguments, options and errors are those of `post`; `timeout` is
        for the whole stream.
        """
        call = CallOptions.of(on, parameters, return_type, {**options, "timeout": timeout})
        connection = self._connection(asyncio.get_running_loop())
        async with aclosing(connection.stream(the_document(inputs), call)) as steps:
            async for doc in steps:
                yield doc

    async def is_flow_ready(self, **options: Unpack[ReadyOptions]) -> bool:
        """Whether the server reports that it is ready; False if it cannot be reached."""
        connection = self._connection(asyncio.get_running_loop())
        return await connection.ready(dict(options.get("headers") or {}))

    dry_run = is_flow_ready
