"""One call on a JSON WebSocket: opens it, parses its documents, and writes its answer as events, with one last event.

The socket is known here only as the function that writes an event when it is this call's turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers

from jina_asgi.concurrency.tasks import cancel_requests, uncancel
from jina_asgi.errors import ExecutorError
from jina_asgi.errors._raised import future_safe
from jina_asgi.protocols.http.answers import answers, name_of
from jina_asgi.protocols.http.bodies import JSON, MSGPACK, BodiesByEndpoint
from jina_asgi.protocols.problems import in_one_object
from jina_asgi.protocols.service import CallerInfo, CallerLeft, Service
from jina_asgi.protocols.websocket._messages import CallMessage, Events, PackedEvents


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
            if self._stopped and self._asked is not None:
                name = name_of(self._asked.endpoint) or ""
                self._socket.service.refused(name, _Stopped(), "websocket")
                raise _Stopped
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

    async def _answer(self) -> tuple[str | bytes, ...]:
        asked, socket = self._asked, self._socket
        assert asked is not None
        headers = {**socket.headers, **asked.trace} if asked.trace else socket.headers
        caller, media = CallerInfo(headers, self._until, socket.user), MSGPACK if asked.packed else JSON
        given = socket.service, caller, asked.endpoint, socket.bodies, media, self._take
        frames = answers(*given, self._events.answer, self._events.doc)
        del asked, given
        async with aclosing(frames):
            async for frame in frames:
                if isinstance(frame, tuple):
                    return frame
                await self._write(self, frame)
                if self._stopped:
                    raise _Stopped
        return (self._events.end(),)

    def _take(self) -> bytes:
        """Return the message, which is read now."""
        assert self._asked is not None
        raw, self._asked = self._asked.raw, None
        return raw


__all__ = ["Gone", "OpenCall", "SocketContext"]
