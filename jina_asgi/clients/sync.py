"""The synchronous Client: requests run on a background event loop; inputs and callbacks run in the caller's thread."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from functools import partialmethod
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from pydantic import BaseModel

from jina_asgi.clients.connection import BaseClient, ClientSession
from jina_asgi.clients.inputs import answers, batches, the_document
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
from jina_asgi.concurrency.loops import LoopThread, loop_thread

if TYPE_CHECKING:
    from jina_asgi.clients.asynchronous import AsyncClient

_END: Any = object()

L = TypeVar("L", bound=list[Any])
M = TypeVar("M", bound=BaseModel)


class SyncClient(BaseClient):
    """The synchronous Client, from `Client(...)`: every call blocks until it is answered, also in a running event loop.

    Threads may share one; their calls do not wait for each other.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections. A later call opens new ones."""
        if not self._connections:
            return
        thread = loop_thread("client")
        connection = self._connections.pop(thread.loop, None)
        self._connections.clear()
        if connection is not None:
            thread.run(connection.close())

    @overload
    def post(self, on: str, inputs: Any = None, *, return_type: type[L], **options: Unpack[AnswerOptions]) -> L: ...
    @overload
    def post(self, on: str, inputs: BaseModel, *, return_type: type[M], **options: Unpack[AnswerOptions]) -> M: ...
    @overload
    def post(
        self, on: str, inputs: Any = None, *, return_type: type[M], **options: Unpack[AnswerOptions]
    ) -> M | list[M]: ...
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
    ) -> Any: ...
    def post(
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
    ) -> Any:
        """Calls an endpoint, and returns the documents of all answers.

        Args:
            on: the endpoint.
            inputs: a document, a list or generator of them, a function that returns one of these, or None.
            on_done: called with the response of each request that succeeded.
            on_error: called with the response of each request that failed; without it, and without `continue_on_error`, a
                failed request raises.
            on_always: called with the response of each request, after the other callbacks.
            parameters: for the endpoint: a dict or a pydantic model.
            target_executor: a regular expression of the names of the Flow's Executors that should run.
            request_size: documents in a request; 0 or less sends all in one.
            show_progress: show the number of finished requests on stderr.
            continue_on_error: log failed requests, and continue.
            return_responses: return responses, with `docs`, `parameters`, `header`, `routes` and `status`.
            max_attempts: how often a request is sent at most. It is retried if nothing ran (the server was not
                reachable, overloaded or loading), and if the server says that another attempt may succeed.
            initial_backoff, max_backoff, backoff_multiplier: the seconds between attempts, as in Jina.
            results_in_order: return answers in the order of their requests, not as they come.
            stream: has an effect over gRPC only.
            prefetch: how many requests are open at the same time; inputs are not read further ahead.
            return_type: `DocList[T]`, `list[T]`, or a document class; without it documents have any fields.
                `numpy.ndarray`: the one tensor that each document has, all in one array, in the order of the inputs.
            options: `files` (by field: a path, bytes, an open file, (name, content), or a list of these; sent with each
                request as a form, over HTTP), `timeout` (seconds, for each request), `headers`, `metadata` (sent as
                headers), `auth` (a user and a password), `cookies`.

        Returns:
            A list of documents, or the one document if `return_type` is a class and there is one; with
            `return_responses` a list of responses; None if `on_done` or `on_always` is given.

        Raises:
            BadClient: no such endpoint; an answer that does not fit `return_type`.
            BadClientInput: invalid inputs, or an invalid option.
            BadClientCallback: a callback raised.
            BadServer: the server answered with an error.
            ConnectionError: the server cannot be reached, is overloaded, or the deadline passed.
        """
        retries = Retries(max_attempts, initial_backoff, max_backoff, backoff_multiplier)
        call = CallOptions.of(on, parameters, return_type, options, target_executor=target_executor, retries=retries)
        handling = AnswerHandler(on_done, on_error, on_always, continue_on_error, return_responses)
        ahead = self._ahead(prefetch)
        thread, connection = self._connect()
        collected: list[Any] = []
        with Progress(shown=show_progress) as progress, closing(batches(inputs, request_size, thread)) as requests:
            responses = answers(
                requests,
                lambda docs: thread.submit(connection.ask(docs, call)),
                ahead=ahead,
                in_order=results_in_order or call.returns.is_array,
            )
            with closing(responses):
                for response in responses:
                    progress.count(response)
                    if handling.settle(response) and handling.collects:
                        collected += [response] if return_responses else call.returns.parts(response.docs)
        if not handling.collects:
            return None
        return collected if return_responses else call.returns.given(call.returns.listed(collected))

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
    ) -> Generator[M, None, None]: ...
    @overload
    def stream_doc(
        self,
        on: str,
        inputs: BaseModel,
        parameters: Mapping[str, Any] | BaseModel | None = None,
        return_type: None = None,
        timeout: float | None = None,
        **options: Unpack[StreamOptions],
    ) -> Generator[Any, None, None]: ...
    def stream_doc(
        self,
        on: str,
        inputs: BaseModel,
        parameters: Mapping[str, Any] | BaseModel | None = None,
        return_type: Any = None,
        timeout: float | None = None,
        **options: Unpack[StreamOptions],
    ) -> Generator[Any, None, None]:
        """Calls a streaming endpoint with one document, and yields its documents as they come.

        Closing the generator stops the server's work. Arguments, options and errors are those of `post`; `timeout` is
        for the whole stream.
        """
        call = CallOptions.of(on, parameters, return_type, {**options, "timeout": timeout})
        thread, connection = self._connect()
        steps = connection.stream(the_document(inputs), call)

        async def step() -> Any:
            return await anext(steps, _END)

        def documents() -> Generator[Any, None, None]:
            try:
                while (doc := thread.run(step())) is not _END:
                    yield doc
            finally:
                thread.run(steps.aclose())

        return documents()

    def is_flow_ready(self, **options: Unpack[ReadyOptions]) -> bool:
        """Whether the server reports that it is ready; False if it cannot be reached."""
        thread, connection = self._connect()
        return thread.run(connection.ready(dict(options.get("headers") or {})))

    dry_run = is_flow_ready

    def asynchronous(self) -> AsyncClient:
        """Creates an asynchronous Client of the same server."""
        from jina_asgi.clients.asynchronous import AsyncClient

        return AsyncClient(self.address, self._settings, prefetch=self._prefetch, app=self._app)

    def _connect(self) -> tuple[LoopThread, ClientSession]:
        """The background loop and its session; both are new in a forked process."""
        thread = loop_thread("client")
        return thread, self._connection(thread.loop)
