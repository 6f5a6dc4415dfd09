"""A Runner whose calls are executed by a remote server, over any transport.

The server admits calls and keeps deadlines itself; here a call is sent, and cancelled when its caller cancels it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

from jina_asgi.concurrency.lifecycle import Lifecycle
from jina_asgi.concurrency.tasks import uncancel
from jina_asgi.documents.codec import codec
from jina_asgi.errors import InvalidDocs, NotReady, ProtocolError, Unavailable, UnknownEndpoint, interrupted_error
from jina_asgi.protocols.frames._heads import match_endpoints
from jina_asgi.protocols.remote.transport import OutgoingRequest, ServerDescription, Transport
from jina_asgi.types import Call, Docs, Endpoint, Result, Ticket, resolve

#: Headers of a caller that concern its own connection or body, or that are secrets between it and this server.
_KEPT_BACK = frozenset(
    "accept accept-encoding authorization connection content-encoding content-length content-type cookie expect host"
    " keep-alive origin proxy-authorization proxy-connection sec-websocket-extensions sec-websocket-key"
    " sec-websocket-protocol sec-websocket-version te trailer transfer-encoding upgrade x-request-timeout".split()
)


class _OpenCall:
    """One open call: the task that waits in it, or the generator of a stream between two steps."""

    __slots__ = ("steps", "stopped", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.steps: AsyncGenerator[Any, None] | None = None
        self.stopped = False


class RemoteRunner:
    """The endpoints of a server, as a Runner.

    They come from the server, without classes, so that typed docs are dicts. A caller's headers are forwarded, without
    its credentials.

    Args:
        where: the server, for messages.
        transport: makes what calls are sent through, once for each lifespan, which closes it.
        endpoints: the server's endpoints with their classes; they are then known before the lifespan starts.
        grace: how long leaving the lifespan waits for open calls, in seconds.
        startup_timeout: how long entering it waits for the server's description, in seconds.
    """

    def __init__(
        self,
        where: str,
        transport: Callable[[], AbstractAsyncContextManager[Transport]],
        *,
        endpoints: Mapping[str, Endpoint] | None = None,
        grace: float = 30.0,
        startup_timeout: float = 30.0,
    ) -> None:
        self._where, self._transport_of = where, transport
        self._expected, self._endpoints = endpoints, endpoints
        self._startup_timeout, self._life = startup_timeout, Lifecycle(grace)
        self._server: Transport | None = None
        self._open: set[_OpenCall] = set()

    def _forwarded(self, headers: dict[str, str]) -> dict[str, str]:
        """Selects the caller's headers that the protocol can carry."""
        return headers

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The endpoints of the server.

        Raises:
            NotReady: never connected, and none were given.
        """
        if self._endpoints is None:
            raise NotReady(f"the endpoints of {self._where} are known once the lifespan has started")
        return self._endpoints

    def admit(self, endpoint: str, *, size: int = 0) -> Ticket:
        self._require_open()
        return Ticket()  # the server admits a call when it arrives there

    async def call(self, call: Call, /) -> Result:
        transport, endpoint, request = self._route(call)
        if endpoint.kind == "stream":
            raise InvalidDocs(f"{call.endpoint} streams its answer; ask for a stream")
        opened = _OpenCall()
        with self._opened(opened), self._waiting(opened, call):
            answer = await transport.ask(request)
        results = answer.parameters.get("__results__")
        return Result(await answer.decoded(codec(endpoint.output)), results if isinstance(results, dict) else {})

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        transport, endpoint, request = self._route(call)
        reader, opened = codec(endpoint.output), _OpenCall()
        if endpoint.kind != "stream":
            if len(call.docs) != 1:
                raise InvalidDocs(f"{call.endpoint} takes one document, got {len(call.docs)}")
            for doc in (await self.call(call)).docs.typed:
                yield reader.docs([doc])
            return
        opened.steps = transport.events(request)
        with self._opened(opened):
            try:
                while True:
                    with self._waiting(opened, call):
                        answer = await anext(opened.steps, None)
                    if answer is None:
                        break
                    yield await answer.decoded(reader)
            except GeneratorExit:
                call.context.cancelled = True
                raise
            finally:
                await opened.steps.aclose()
            if opened.stopped:
                raise self._stopped_error()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        if self._server is not None:
            raise NotReady(f"a lifespan of this Runner of {self._where} is open already")
        with self._life.running():
            async with self._transport_of() as transport:
                try:
                    async with asyncio.timeout(self._startup_timeout):
                        description = await transport.served()
                except TimeoutError as error:
                    raise NotReady(
                        f"{transport.name} did not describe its endpoints within {self._startup_timeout} s"
                    ) from error
                self._endpoints = self._match_endpoints(description)
                try:
                    async with self._life.ending(self._finish):
                        self._server, self._life.state = transport, "ready"
                        yield
                finally:
                    self._server = None

    def _match_endpoints(self, description: ServerDescription) -> Mapping[str, Endpoint]:
        if description.ours or self._expected is None:
            return match_endpoints(self._expected, description.endpoints)
        missing = sorted(self._expected.keys() - description.endpoints.keys())
        if missing:
            raise ProtocolError(f"{self._where} does not serve the given endpoints: {', '.join(missing)}")
        return self._expected

    def _require_open(self) -> Transport:
        if self._server is None or self._life.state != "ready":
            raise NotReady.in_state(f"the Runner of {self._where}", self._life.state)
        return self._server

    def _route(self, call: Call) -> tuple[Transport, Endpoint, OutgoingRequest]:
        """The transport, the endpoint and the request for a call."""
        transport = self._require_open()
        endpoint = resolve(self.endpoints, call.endpoint)
        if endpoint is None:
            raise UnknownEndpoint(f"{transport.name} has no endpoint {call.endpoint!r} and no '/default'")
        context = call.context
        request = OutgoingRequest(
            endpoint=endpoint.name,
            docs=call.begin(),
            parameters=call.parameters,
            header={"request_id": context.request_id} if context.request_id else {},
            headers=self._forwarded({key: text for key, text in context.headers.items() if key not in _KEPT_BACK}),
            deadline=context.deadline,
            with_json=endpoint.output.model is None,
        )
        return transport, endpoint, request

    @contextmanager
    def _opened(self, opened: _OpenCall) -> Iterator[None]:
        self._open.add(opened)
        try:
            yield
        finally:
            self._ended(opened)

    def _ended(self, opened: _OpenCall) -> None:
        self._open.discard(opened)
        if not self._open:
            self._life.idle.set()

    @contextmanager
    def _waiting(self, opened: _OpenCall, call: Call) -> Iterator[None]:
        """Records the task that waits for the server, and finds out whether the caller or `_finish` cancelled it."""
        opened.task = asyncio.current_task()
        try:
            yield
        except InvalidDocs as error:
            raise _without_request_place(error) from error
        except asyncio.CancelledError:
            call.context.cancelled = True
            if not opened.stopped:
                raise
            uncancel()
            raise self._stopped_error() from None
        finally:
            opened.task = None

    def _stopped_error(self) -> Unavailable:
        return interrupted_error(f"the Runner of {self._where} stopped", begun=True)  # it may have begun

    async def _finish(self) -> None:
        """Lets open calls end within the grace period, then cancels them; being cancelled ends that period."""
        if await self._life.drain(self._open):
            return
        for opened in list(self._open):
            opened.stopped = True
            if opened.task is not None:
                opened.task.cancel()
            elif opened.steps is not None:  # between two steps: no task waits in it
                await opened.steps.aclose()
                self._ended(opened)
        await self._life.idle.wait()


def _without_request_place(error: InvalidDocs) -> InvalidDocs:
    """Converts a server's list of invalid documents or parameters to a Runner's, without their place in a body."""
    return InvalidDocs(error.message, [{**entry, "loc": _within(entry.get("loc") or ())} for entry in error.errors])


def _within(place: Sequence[str | int]) -> list[str | int]:
    match [*place]:
        case ["query", *rest]:
            return [0, *rest]
        case ["body", "data", str(branch), *rest]:
            return rest if branch.startswith("list[") else [0, *rest]
        case ["body", *rest]:
            return rest[1:] if rest[:1] == ["data"] else rest
        case other:
            return other
