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
from jina_asgi.clients.options import AnswerOptions, RequestOptions, StreamOptions
from jina_asgi.clients.posts import Callback, Handling, Question
from jina_asgi.clients.progress import Progress
from jina_asgi.clients.window import async_answers

L = TypeVar("L", bound=list[Any])
M = TypeVar("M", bound=BaseModel)


class AsyncClient(BaseClient):
    """What `Client(asyncio=True)` gives. One may be used on several event loops, one after another or at once."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections of this loop. A later call opens new ones."""
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
        """Ask an endpoint, and give the documents of each request as they come.

        Args:
            on: the endpoint.
            inputs: as of a synchronous Client, or an async generator of documents.
            on_done: called with the response of each request that went well.
            on_error: called with that of each that did not; without it, and without `continue_on_error`, that raises.
            on_always: called with that of each, after the others.
            parameters: for the endpoint: a dict or a pydantic model.
            target_executor: the Executors of a Flow that are to work, as a regular expression of their names.
            request_size: documents in a request; 0 or less sends all in one.
            show_progress: count requests on stderr.
            continue_on_error: log what fails, and go on.
            return_responses: give the responses, with `docs`, `parameters`, `header`, `routes` and `status`.
            max_attempts: how often a request is sent at most. It is sent again where nothing ran (the server was not
                there, or busy, or still loading), and where the server says that another attempt may succeed.
            initial_backoff, max_backoff, backoff_multiplier: the seconds between attempts, as Jina counts them.
            results_in_order: give answers in the order of their requests, not as they come.
            stream: has a meaning over gRPC alone.
            prefetch: how many requests are open at once; inputs are read no further.
            return_type: `DocList[T]`, `list[T]`, or a document class; without it documents have any fields.
                `numpy.ndarray`: the one tensor that each document has, those of a request in one array, in order.
            options: `files` (by field: a path, bytes, an open file, (name, content), or a list of these; sent with each
                request as a form, over HTTP), `timeout` (seconds, for each request), `headers`, `metadata` (sent as headers), `auth` (a user and
                a password), `cookies`.

        Yields:
            For each request a list of documents, or the one document where `return_type` is a class and there is one;
            with `return_responses` its response.

        Raises:
            BadClient: no such endpoint; an answer that does not fit `return_type`.
            BadClientInput: inputs, or an option, that is none.
            BadClientCallback: a callback raised.
            BadServer: the server answered with an error.
            ConnectionError: it cannot be reached, is busy, or is late.
        """
        retries = Retries(max_attempts, initial_backoff, max_backoff, backoff_multiplier)
        question = Question.of(on, parameters, return_type, options, target_executor=target_executor, retries=retries)
        handling = Handling(
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
                lambda docs: connection.ask(docs, question),
                ahead=ahead,
                in_order=results_in_order or question.returns.is_array,
            )
            async with aclosing(responses):
                async for response in responses:
                    progress.count(response)
                    if handling.settle(response):
                        yield response if return_responses else question.returns.given(response.docs)

    index = partialmethod(post, "/index")
    search = partialmethod(post, "/search")
    update = partialmethod(post, "/update")
    delete = partialmethod(post, "/delete")

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
        """Ask a streaming endpoint with one document, and give its documents as they come.

        Closing the generator stops the server's work. Arguments, options and errors are those of `post`; `timeout` is
        for the whole stream.
        """
        question = Question.of(on, parameters, return_type, {**options, "timeout": timeout})
        connection = self._connection(asyncio.get_running_loop())
        async with aclosing(connection.stream(the_document(inputs), question)) as steps:
            async for doc in steps:
                yield doc

    async def is_flow_ready(self, **options: Any) -> bool:
        """Whether the server says that it can answer; False where there is none."""
        connection = self._connection(asyncio.get_running_loop())
        return await connection.ready(dict(options.get("headers") or {}))

    dry_run = is_flow_ready
