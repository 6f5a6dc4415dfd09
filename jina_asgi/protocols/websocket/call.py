"""One call on a JSON WebSocket: who asks, a place in the queue, the documents, the answer, and one last event.

Its socket is known here as what writes an event when it is this call's turn.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from starlette.datastructures import Headers
from starlette.types import Scope

from jina_asgi.concurrency.offload import beside
from jina_asgi.concurrency.tasks import cancel_requests, is_cancel, uncancel
from jina_asgi.errors import DeadlineExceeded, ExecutorError, InvalidDocs, Unavailable, UnknownEndpoint
from jina_asgi.errors._raised import carried
from jina_asgi.executors.endpoints import normalised
from jina_asgi.protocols.http.answer_bodies import Step, answer, large_step, step_in, unwritable, written
from jina_asgi.protocols.http.app import EndpointApp, HttpOptions, Live, authenticate, within
from jina_asgi.protocols.http.bodies import JSON, MSGPACK, Bodies
from jina_asgi.protocols.problems import problem
from jina_asgi.protocols.size_guard import are_large, is_large
from jina_asgi.protocols.websocket._messages import Asked, Events
from jina_asgi.protocols.websocket._packed import PackedEvents
from jina_asgi.settings.jina_mode import as_jina
from jina_asgi.types import Call, Context, Result, Runner, unsaid

_name = functools.lru_cache(maxsize=256)(normalised)  # of a client's own spelling: the same few again and again


class Lasting(Live, Protocol):
    """Where the Runner lives, and who says when that ends."""

    @property
    def leaving(self) -> bool: ...

    def follow(self, told: Callable[[], None]) -> None: ...

    def unfollow(self, told: Callable[[], None]) -> None: ...


@dataclass(frozen=True, slots=True)
class Around:
    """What all calls of one socket have in common.

    Attributes:
        scope: the handshake's, and `headers` its headers.
        find: the application of each endpoint; raises NotReady while they are not known.
        live: where the Runner is.
        options: those of the application.
    """

    scope: Scope
    headers: Headers
    find: Callable[[], Mapping[str, EndpointApp]]
    live: Lasting
    options: HttpOptions

    def told(self, events: Events, error: BaseException) -> str | bytes:
        """The event that tells of an error."""
        status, body, _ = problem(error, expose=self.options.expose_errors)
        return events.error(status, body, error.retry_after if isinstance(error, Unavailable) else None)


class Gone(Exception):  # an event, and nobody's error
    """The client is gone: nobody is told anything any more."""


class _Stopped(Exception):  # an event too
    """The client said "cancel"."""


class OpenCall:
    """One call, from its message to its last event.

    Attributes:
        sends: its event is being sent, which is not to be interrupted: on some servers that would cut the frame.
        spoke_since: since when nobody else has spoken.
        unread: bytes of documents that have not been read yet.
    """

    __slots__ = ("_around", "_asked", "_begun", "_events", "_stopped", "_until", "_write", "sends", "spoke_since")

    def __init__(self, asked: Asked, around: Around, write: Callable[[OpenCall, str | bytes], Awaitable[None]]) -> None:
        self._asked: Asked | None = asked
        self._around, self._write = around, write
        self._events = (PackedEvents if asked.packed else Events)(asked.id)
        self._until = None if asked.timeout is None else time.monotonic() + asked.timeout
        self._begun = self._stopped = self.sends = False
        self.spoke_since = 0.0

    @property
    def unread(self) -> int:
        return 0 if self._asked is None else len(self._asked.raw)

    def stop(self, task: asyncio.Task[None]) -> None:
        """The client says "cancel": end its work, which `task` does, at once or where it next can."""
        if not self._stopped:
            self._stopped = True
            if self._begun and not self.sends:
                task.cancel()

    async def outcome(self) -> tuple[str | bytes, ...]:
        """Make the call; its last event, behind the answer where that is one.

        Raises:
            Gone: nobody is there to read it. CancelledError: the socket ends.
        """
        self._begun = True
        try:
            if self._stopped:
                raise _Stopped
            return await self._answer()
        except Gone:
            raise
        except asyncio.CancelledError:
            if cancel_requests() > self._stopped:
                raise
            if not self._stopped:
                unasked = ExecutorError("the call was cancelled by nobody who asked it")
                return (self._around.told(self._events, unasked),)
            uncancel()
            return (self._events.cancelled(),)
        except _Stopped:
            return (self._events.cancelled(),)
        except BaseException as error:  # noqa: BLE001  # told to the client, and logged there
            return (self._around.told(self._events, carried(error)),)
        finally:
            self._asked = None

    async def _answer(self) -> tuple[str | bytes, ...]:
        asked, around, until = self._asked, self._around, self._until
        assert asked is not None
        name = _name(asked.endpoint)
        if name is None:
            raise UnknownEndpoint("Not Found")
        auth, scope = around.options.auth, around.scope
        identity = await authenticate(auth, name, scope) if auth else scope.get("user")
        live = around.live.runner()
        runner = await (live if until is None else within(until, live))
        app = around.find().get(name)
        if app is None and not as_jina():  # where the documents come back unchanged
            raise UnknownEndpoint("Not Found")
        bodies = Bodies(unsaid(name), around.options.limits) if app is None else app.bodies
        ticket = runner.admit(name, size=len(asked.raw))
        try:
            if until is not None and time.monotonic() >= until:
                raise DeadlineExceeded(f"the deadline of this call to {name} has passed")
            read, raw, media = bodies.read, asked.raw, MSGPACK if asked.packed else JSON
            asked = self._asked = None
            heavy = bodies.is_heavy(media, raw)
            request = await beside(until, read, media, raw, heavy=True) if heavy else read(media, raw)
            del raw  # it may be large, and is not needed any more
            request_id = request.request_id or os.urandom(16).hex()
            context = Context(request_id, headers=around.headers, deadline=until, identity=identity)
            call = Call(name, request.docs, request.parameters, context, (), request.target_executor)
            try:
                if app is not None and app.endpoint.kind == "stream":
                    await self._stream(runner, call, step_in(media), media)
                    return (self._events.end(),)
                result = Result(call.docs) if app is None else await runner.call(call)
            except InvalidDocs as error:
                raise request.placed(error) from error
            write = functools.partial(answer, result, request.parameters, request_id, media)
            large = heavy or is_large(result, media)
            return await written(call, functools.partial(self._answered, write), large=large), self._events.end()
        finally:
            ticket.close()

    def _answered(self, write: Callable[..., bytes], *, in_pieces: bool = False) -> str | bytes:
        return self._events.answer(write(in_pieces=in_pieces))

    async def _stream(self, runner: Runner, call: Call, step: Step, media: str) -> None:
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


__all__ = ["Around", "Gone", "Lasting", "OpenCall"]
