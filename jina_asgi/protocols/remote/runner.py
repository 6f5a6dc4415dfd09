"""A Runner whose work is done by a server elsewhere, whatever the protocol that it is asked in.

The server gives its own places in the queue and keeps its own deadlines; here a call is sent, and ended where its
caller ends.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Protocol

from jina_asgi.concurrency.grace import grace_left
from jina_asgi.concurrency.tasks import uncancel
from jina_asgi.documents.codec import codec
from jina_asgi.errors import InvalidDocs, NotReady, ProtocolError, Unavailable, UnknownEndpoint, cut_short
from jina_asgi.protocols.frames._heads import match_endpoints
from jina_asgi.protocols.http.bodies import JSON, MSGPACK
from jina_asgi.protocols.remote.server import Answer, Asked, Served
from jina_asgi.types import EMPTY, Call, Docs, Endpoint, Result, Ticket, resolve

#: Headers of a caller that are about its own connection or body, or that are secrets between it and us.
_KEPT_BACK = frozenset(
    "accept accept-encoding authorization connection content-encoding content-length content-type cookie expect host"
    " keep-alive proxy-authorization proxy-connection te trailer transfer-encoding upgrade x-request-timeout".split()
)


class _Place:
    """A ticket that holds nothing: the server gives places when a call arrives there."""

    def close(self) -> None:
        return


_PLACE = _Place()


class _Open:
    """One open call: the task that waits in it now, or the steps of a stream that nobody waits in."""

    __slots__ = ("steps", "stopped", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.steps: AsyncGenerator[Any, None] | None = None
        self.stopped = False


class Far(Protocol):
    """What a call is sent to: `server.Remote`, and its like in other protocols."""

    @property
    def name(self) -> str: ...

    async def served(self, headers: Mapping[str, str] = EMPTY) -> Served: ...

    async def ready(self, headers: Mapping[str, str] = EMPTY) -> bool: ...

    async def ask(self, asked: Asked, *, media: str = JSON) -> Answer: ...

    def events(self, asked: Asked, *, media: str = JSON, get: bool = False) -> AsyncGenerator[Answer, None]: ...

    async def close(self) -> None: ...


class RemoteRunner(ABC):
    """The endpoints of a server, as a Runner.

    They come from the server, without classes, so that typed docs are dicts. A caller's headers go along, without its
    credentials.

    Args:
        where: the server, for messages.
        endpoints: the server's endpoints with their classes; they are then known before the lifespan starts.
        grace: how long leaving the lifespan waits for open calls, in seconds.
        startup_timeout: how long entering it waits for the server's description, in seconds.
    """

    def __init__(
        self,
        where: str,
        *,
        endpoints: Mapping[str, Endpoint] | None = None,
        grace: float = 30.0,
        startup_timeout: float = 30.0,
    ) -> None:
        self._where = where
        self._given, self._endpoints = endpoints, endpoints
        self._grace, self._startup_timeout = grace, startup_timeout
        self._remote: Far | None = None
        self._served = Served({}, ours=True)
        self._open: set[_Open] = set()
        self._leaving = False
        self._idle: asyncio.Event | None = None

    @abstractmethod
    def _reached(self) -> AbstractAsyncContextManager[Far]:
        """What calls are sent to, while it is open."""

    def _passed_on(self, headers: dict[str, str]) -> dict[str, str]:
        """Those headers of a caller that the protocol has a place for."""
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

    def admit(self, endpoint: str, *, size: int = 0, tenant: str = "", priority: int = 0) -> Ticket:
        self._asking()
        return _PLACE

    async def call(self, call: Call, /) -> Result:
        remote, endpoint, asked = self._find(call)
        if endpoint.kind == "stream":
            raise InvalidDocs(f"{call.endpoint} streams its answer; ask for a stream")
        opened = _Open()
        with self._opened(opened), self._waiting(opened, call):
            answer = await remote.ask(asked, media=MSGPACK if self._served.ours else JSON)
        results = answer.parameters.get("__results__")
        return Result(answer.docs(codec(endpoint.output)), results if isinstance(results, dict) else {})

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        remote, endpoint, asked = self._find(call)
        reader, opened = codec(endpoint.output), _Open()
        if endpoint.kind != "stream":
            for doc in (await self.call(call)).docs.typed:
                yield reader.docs([doc])
            return
        media = MSGPACK if self._served.ours else JSON
        opened.steps = remote.events(asked, media=media, get=endpoint.name in self._served.by_get)
        with self._opened(opened):
            try:
                while True:
                    with self._waiting(opened, call):
                        answer = await anext(opened.steps, None)
                    if answer is None:
                        break
                    yield answer.docs(reader)
            except GeneratorExit:
                call.context.cancelled = True
                raise
            finally:
                await opened.steps.aclose()
            if opened.stopped:
                raise self._stopped()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        if self._remote is not None:
            raise NotReady(f"a lifespan of this Runner of {self._where} is open already")
        async with self._reached() as remote:
            try:
                async with asyncio.timeout(self._startup_timeout):
                    self._served = await remote.served()
            except TimeoutError as error:
                raise NotReady(f"{remote.name} did not say within {self._startup_timeout} s what it serves") from error
            self._endpoints = self._agreed()
            self._remote, self._leaving = remote, False
            try:
                yield
            finally:
                self._leaving = True
                try:
                    await self._finish()
                finally:
                    self._remote = None

    def _agreed(self) -> Mapping[str, Endpoint]:
        if self._served.ours or self._given is None:
            return match_endpoints(self._given, self._served.endpoints)
        missing = sorted(self._given.keys() - self._served.endpoints.keys())
        if missing:
            raise ProtocolError(f"{self._where} does not serve what was given: {', '.join(missing)}")
        return self._given

    def _asking(self) -> Far:
        if self._remote is None or self._leaving:
            ended = "stopped" if self._leaving else NotReady.NOT_STARTED
            raise NotReady.in_state(f"the Runner of {self._where}", ended if self._remote is None else "draining")
        return self._remote

    def _find(self, call: Call) -> tuple[Far, Endpoint, Asked]:
        """Where a call goes, which endpoint it asks, and what is sent there."""
        remote = self._asking()
        endpoint = resolve(self.endpoints, call.endpoint)
        if endpoint is None:
            raise UnknownEndpoint(f"{remote.name} has no endpoint {call.endpoint!r} and no '/default'")
        context = call.context
        asked = Asked(
            endpoint=endpoint.name,
            docs=call.docs,
            parameters=call.parameters,
            header={"request_id": context.request_id} if context.request_id else {},
            headers=self._passed_on({key: text for key, text in context.headers.items() if key not in _KEPT_BACK}),
            deadline=context.deadline,
            with_json=endpoint.output.model is None,
        )
        return remote, endpoint, asked

    @contextmanager
    def _opened(self, opened: _Open) -> Iterator[None]:
        self._open.add(opened)
        try:
            yield
        finally:
            self._ended(opened)

    def _ended(self, opened: _Open) -> None:
        self._open.discard(opened)
        if not self._open and self._idle is not None:
            self._idle.set()

    @contextmanager
    def _waiting(self, opened: _Open, call: Call) -> Iterator[None]:
        """While a task waits for the server: cancelling it is its caller's word, or that of our own end."""
        opened.task = asyncio.current_task()
        try:
            yield
        except InvalidDocs as error:
            raise _unplaced(error) from error
        except asyncio.CancelledError:
            call.context.cancelled = True
            if not opened.stopped:
                raise
            uncancel()
            raise self._stopped() from None
        finally:
            opened.task = None

    def _stopped(self) -> Unavailable:
        return cut_short(f"the Runner of {self._where} stopped", begun=True)  # as far as is known here

    async def _finish(self) -> None:
        """Let open calls end within the grace period, then end them; being cancelled ends that period."""
        if not self._open:
            return
        idle = self._idle = asyncio.Event()
        try:
            async with asyncio.timeout(grace_left(self._grace)):
                await idle.wait()
        except TimeoutError:
            pass
        finally:
            for opened in list(self._open):
                opened.stopped = True
                if opened.task is not None:
                    opened.task.cancel()
                elif opened.steps is not None:  # between two steps, its reader away
                    await opened.steps.aclose()
                    self._ended(opened)
            await idle.wait()


def _unplaced(error: InvalidDocs) -> InvalidDocs:
    """What a server says of documents or parameters, as one in this process would: without their place in its request."""
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
