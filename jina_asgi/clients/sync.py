"""The synchronous Client: requests run on the loop of a thread; inputs are read, and callbacks run, in the caller's."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from functools import partialmethod
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from pydantic import BaseModel

from jina_asgi.clients._retries import Retries
from jina_asgi.clients.base import BaseClient
from jina_asgi.clients.connection import Connection
from jina_asgi.clients.inputs import batches, the_document
from jina_asgi.clients.options import AnswerOptions, RequestOptions, StreamOptions
from jina_asgi.clients.posts import Callback, Handling, Question
from jina_asgi.clients.progress import Progress
from jina_asgi.clients.window import answers
from jina_asgi.concurrency.loops import LoopThread, loop_thread

if TYPE_CHECKING:
    from jina_asgi.clients.asynchronous import AsyncClient

_END: Any = object()

L = TypeVar("L", bound=list[Any])
M = TypeVar("M", bound=BaseModel)


class SyncClient(BaseClient):
    """What `Client(...)` gives: every call waits for its answer, also where an event loop runs (a notebook).

    Threads may share one; their calls do not wait for each other.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. A later call opens new ones."""
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
        """Ask an endpoint, and give the documents of all answers.

        Args:
            on: the endpoint.
            inputs: a document, a list or generator of them, a function that gives one of these, or None.
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
                `numpy.ndarray`: the one tensor that each document has, all in one array, in the order of the inputs.
            options: `files` (by field: a path, bytes, an open file, (name, content), or a list of these; sent with each
                request as a form, over HTTP), `timeout` (seconds, for each request), `headers`, `metadata` (sent as headers), `auth` (a user and
                a password), `cookies`.

        Returns:
            A list of documents, or the one document where `return_type` is a class and there is one; with
            `return_responses` a list of responses; None where `on_done` or `on_always` takes them.

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
        thread, connection = self._there()
        collected: list[Any] = []
        with Progress(shown=show_progress) as progress, closing(batches(inputs, request_size, thread)) as asked:
            responses = answers(
                asked,
                lambda docs: thread.submit(connection.ask(docs, question)),
                ahead=ahead,
                in_order=results_in_order or question.returns.is_array,
            )
            with closing(responses):
                for response in responses:
                    progress.count(response)
                    if handling.settle(response) and handling.collects:
                        collected += [response] if return_responses else question.returns.parts(response.docs)
        if not handling.collects:
            return None
        return collected if return_responses else question.returns.given(question.returns.listed(collected))

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
        """Ask a streaming endpoint with one document, and give its documents as they come.

        Closing the generator stops the server's work. Arguments, options and errors are those of `post`; `timeout` is
        for the whole stream.
        """
        question = Question.of(on, parameters, return_type, {**options, "timeout": timeout})
        thread, connection = self._there()
        steps = connection.stream(the_document(inputs), question)

        async def step() -> Any:
            return await anext(steps, _END)

        def documents() -> Generator[Any, None, None]:
            try:
                while (doc := thread.run(step())) is not _END:
                    yield doc
            finally:
                thread.run(steps.aclose())

        return documents()

    def is_flow_ready(self, **options: Any) -> bool:
        """Whether the server says that it can answer; False where there is none."""
        thread, connection = self._there()
        return thread.run(connection.ready(dict(options.get("headers") or {})))

    dry_run = is_flow_ready

    def asynchronous(self) -> AsyncClient:
        """An asynchronous Client of the same server."""
        from jina_asgi.clients.asynchronous import AsyncClient

        return AsyncClient(self.address, self._settings, prefetch=self._prefetch, app=self._app)

    def _there(self) -> tuple[LoopThread, Connection]:
        """The loop that requests run on, and the connection there; both anew in a process that was forked."""
        thread = loop_thread("client")
        return thread, self._connection(thread.loop)
