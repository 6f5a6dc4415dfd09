"""One call on a JSON WebSocket: opens it, parses its documents, and writes its answer as events, with one last event.

The socket is known here only as the function that writes an event when it is this call's turn.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers

from jina_asgi.concurrency.offload import parse_in_thread
from jina_asgi.concurrency.tasks import cancel_requests, is_cancel, uncancel
from jina_asgi.errors import ExecutorError, InvalidDocs, UnknownEndpoint
from jina_asgi.errors._raised import future_safe
from jina_asgi.executors.endpoints import normalised
from jina_asgi.protocols.http.answer_bodies import WriteDocument, answer, large_step, step_in, unwritable, written
from jina_asgi.protocols.http.bodies import JSON, MSGPACK, Bodies
from jina_asgi.protocols.problems import in_one_object
from jina_asgi.protocols.service import CallerLeft, Service
from jina_asgi.protocols.size_guard import are_large, is_large
from jina_asgi.protocols.websocket._messages import CallMessage, Events, PackedEvents
from jina_asgi.settings import Limits
from jina_asgi.settings.jina_options import as_jina
from jina_asgi.types import Call, Endpoint, Result, Runner, random_id, untyped_endpoint

_name = functools.lru_cache(maxsize=256)(normalised)  # as written by clients: usually the same few


class BodiesByEndpoint:
    """The reader of each endpoint's bodies, kept while the endpoint stays the same."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._kept: dict[str, tuple[Endpoint, Bodies]] = {}

    def of(self, endpoint: Endpoint) -> Bodies:
        """The reader of the bodies of one endpoint."""
        known, bodies = self._kept.get(endpoint.name, (None, None))
        if bodies is None or known is not endpoint:
            bodies = Bodies(endpoint, self._limits)
            self._kept[endpoint.name] = endpoint, bodies
        return bodies


@dataclass(frozen=True, slots=True)
class SocketContext:
    """The shared data of all calls of one socket.

    Attributes:
        service: answers them.
        headers: the handshake's.
        user: the identity from the host's own middleware.
        bodies: the readers of their bodies.
    """

    service: Service
    headers: Headers
    user: Any
    bodies: BodiesByEndpoint

    def error_event(self, events: Events, error: BaseException) -> str | bytes:
        """The event for an error."""
        return events.error(in_one_object(*self.service.problem(error)))


class Gone(CallerLeft):
    """The client has left: no more events can be sent."""


class _Stopped(CallerLeft):
    """The client has cancelled the call."""


class OpenCall:
    """One call, from its message to its last event.

    Attributes:
        sends: its event is being sent; cancelling that would break the frame on some servers.
        unread: bytes of documents that have not been parsed yet.
    """

    __slots__ = ("_asked", "_begun", "_events", "_socket", "_stopped", "_until", "_write", "sends")

    def __init__(
        self, asked: CallMessage, socket: SocketContext, write: Callable[[OpenCall, str | bytes], Awaitable[None]]
    ) -> None:
        self._asked: CallMessage | None = asked
        self._socket, self._write = socket, write
        self._events = (PackedEvents if asked.packed else Events)(asked.id)
        self._until = None if asked.timeout is None else time.monotonic() + asked.timeout
        self._begun = self._stopped = self.sends = False

    @property
    def unread(self) -> int:
        return 0 if self._asked is None else len(self._asked.raw)

    def stop(self, task: asyncio.Task[None]) -> None:
        """Cancel the call, which `task` runs: now, or as soon as possible."""
        if not self._stopped:
            self._stopped = True
            if self._begun and not self.sends:
                task.cancel()

    async def outcome(self) -> tuple[str | bytes, ...]:
        """Make the call; return its last event, after the answer of a unary call.

        Raises:
            Gone: the client has left. CancelledError: the socket ends.
        """
        self._begun = True
        try:
            if self._stopped:
                raise self._refused(_Stopped())
            return await self._answer()
        except Gone:
            raise
        except asyncio.CancelledError:
            if cancel_requests() > self._stopped:
                raise
            if not self._stopped:
                unasked = ExecutorError("the call was cancelled, and not by its client")
                return (self._socket.error_event(self._events, unasked),)
            uncancel()
            return (self._events.cancelled(),)
        except _Stopped:
            return (self._events.cancelled(),)
        except BaseException as error:  # noqa: BLE001  # sent to the client, and logged there
            return (self._socket.error_event(self._events, future_safe(error)),)
        finally:
            self._asked = None

    def _refused(self, error: Exception) -> Exception:
        """The error of a call that was not opened."""
        assert self._asked is not None
        self._socket.service.refused(_name(self._asked.endpoint) or "", error, "websocket")
        return error

    async def _answer(self) -> tuple[str | bytes, ...]:
        asked, socket, until = self._asked, self._socket, self._until
        assert asked is not None
        name = _name(asked.endpoint)
        if name is None:
            raise self._refused(UnknownEndpoint("Not Found"))
        service = socket.service
        headers = {**socket.headers, **asked.trace} if asked.trace else socket.headers
        with await service.open(name, headers, socket.user, deadline=until, method="websocket") as opened:
            endpoint = service.endpoints.get(name)
            if endpoint is None and not as_jina():  # the documents are returned unchanged
                raise UnknownEndpoint("Not Found")
            bodies = Bodies(untyped_endpoint(name), service.limits) if endpoint is None else socket.bodies.of(endpoint)
            opened.resize(len(asked.raw))
            read, raw, media = bodies.read, asked.raw, MSGPACK if asked.packed else JSON
            asked = self._asked = None
            heavy = bodies.is_heavy(media, raw)
            request = await parse_in_thread(until, read, media, raw, heavy=True) if heavy else read(media, raw)
            del raw  # it may be large, and is no longer needed
            request_id = request.request_id or random_id()
            opened.context.request_id = request_id
            call = Call(name, request.docs, request.parameters, opened.context, (), request.target_executor)
            try:
                if endpoint is not None and endpoint.kind == "stream":
                    await self._stream(opened.runner, call, step_in(media), media)
                    return (self._events.end(),)
                result = Result(call.docs) if endpoint is None else await opened.runner.call(call)
            except InvalidDocs as error:
                raise request.placed(error) from error
            large = heavy or is_large(result, media)
            write = self._answered, result, request.parameters, request_id, media
            return await written(call, large, *write), self._events.end()

    def _answered(self, *given: Any, **options: Any) -> str | bytes:
        return self._events.answer(answer(*given, **options))

    async def _stream(self, runner: Runner, call: Call, step: WriteDocument, media: str) -> None:
        async with aclosing(runner.stream(call)) as steps:
            async for docs in steps:
                try:
                    large = are_large(docs, media)
                    event = await large_step(step, docs, self._events.doc) if large else self._events.doc(step(docs))
                except BaseException as error:
                    if is_cancel(error):
                        raise
                    raise unwritable(call, error) from error
                await self._write(self, event)
                if self._stopped:
                    raise _Stopped


__all__ = ["BodiesByEndpoint", "Gone", "OpenCall", "SocketContext"]
