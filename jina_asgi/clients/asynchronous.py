"""The asynchronous Client: `post` is an async generator of one result a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partialmethod
from typing import Any, Self, TypeVar, Unpack, overload

from pydantic import BaseModel

from jina_asgi.clients.connection import BaseClient
from jina_asgi.clients.inputs import async_answers, async_batches, the_document
from jina_asgi.clients.posts import (
    AnswerHandler,
    AnswerOptions,
    Callback,
    CallOptions,
    PostTo,
    Progress,
    ReadyOptions,
    RequestOptions,
    Retries,
    StreamOptions,
)

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

        Arguments and options are those of `SyncClient.post`; `inputs` may also be an async generator of documents.

        Yields:
            For each request a list of documents, or the one document if `return_type` is a class and there is one;
            with `return_responses` its response.

        Raises:
            As `SyncClient.post`.
        """
        retries = Retries(max_attempts, initial_backoff, max_backoff, backoff_multiplier)
        call = CallOptions.of(on, parameters, return_type, options, target_executor=target_executor, retries=retries)
        handling = AnswerHandler(on_done, on_error, on_always, continue_on_error, return_responses)
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
