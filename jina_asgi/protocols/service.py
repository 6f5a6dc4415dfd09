"""The interface between protocols and served Runners: a protocol parses a request, opens a call, and writes the answer.

Loading, readiness, draining, authentication and admission are behind it; no protocol deals with them.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from jina_asgi.protocols.problems import Headers
from jina_asgi.settings import Limits
from jina_asgi.types import Context, Endpoint, Runner, Ticket

#: What clients request to find the endpoints: over HTTP a path, and in `answers` the name of an endpoint.
ENDPOINTS = "/-/endpoints"


class CallerLeft(Exception):  # an event, and no error
    """The base of what a protocol raises within a call when the client has left, or has cancelled it."""


class CallerInfo(msgspec.Struct, frozen=True):
    """The caller of one request.

    Attributes:
        headers: the metadata of an RPC, or the headers of a handshake; names in lower case.
        deadline: a time of `time.monotonic`.
        user: the identity from the host's own middleware, if there is no `auth` hook.
        method: the RPC, as "service/method"; "websocket" of a socket.
    """

    headers: Mapping[str, str]
    deadline: float | None = None
    user: Any = None
    method: str = "websocket"


class OpenedCall(Protocol):
    """One call that may run: `with await service.open(...) as opened`. Leaving gives its place in the queue back.

    Attributes:
        runner: answers the call, on the event loop `loop`, which runs.
        context: that of the call; the protocol sets its `request_id`.
    """

    runner: Runner
    context: Context
    loop: AbstractEventLoop

    @property
    def endpoint(self) -> Endpoint | None:
        """The endpoint that answers the opened name, or "/default"; None if neither exists."""
        ...

    def admit(self, size: int) -> None:
        """Take a place in the queue for a request of `size` bytes (0: not known), in place of an earlier one.

        Raises:
            Overloaded: the queue is full. NotReady: the Runner is not running.
        """
        ...

    def resize(self, size: int) -> None:
        """Called when the request has arrived, with `size` bytes: admit it if its place is smaller, and check its deadline.

        Raises:
            DeadlineExceeded, Overloaded, NotReady.
        """
        ...

    def detach(self) -> Ticket | None:
        """Return the place in the queue; from now on the caller closes it, when the answer has been sent."""
        ...

    def named(self, endpoint: str) -> None:
        """Called when the request's body has named the endpoint that answers, for metrics."""
        ...

    def failed(self, error: BaseException) -> None:
        """Called when the call's outcome is an error that is sent to the client, and not raised out of the block."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Service(Protocol):
    """A Runner for protocols, with the application's options for all endpoints."""

    @property
    def limits(self) -> Limits: ...

    @property
    def has_auth(self) -> bool:
        """Whether there is an `auth` hook."""
        ...

    @property
    def expose_errors(self) -> bool:
        """Whether clients see the message of an Executor's own exception."""
        ...

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The endpoints by name.

        Raises:
            NotReady: the Runner must load before they are known.
        """
        ...

    def current_endpoints(self) -> Mapping[str, Endpoint] | None:
        """The endpoints by name; None while the Runner must load first, as they may then be others."""
        ...

    async def loaded(self) -> Mapping[str, Endpoint]:
        """Wait until the endpoints are known, as calls do; return them.

        Raises:
            NotReady: they are not known in time.
        """
        ...

    def start(self) -> Any:
        """Begin to load, if necessary; returns at once."""
        ...

    def unhealthy_reason(self) -> str:
        """Why no call can be answered now, for clients; "" if calls are answered."""
        ...

    @property
    def is_draining(self) -> bool:
        """Whether open calls are being finished, and no new call should begin."""
        ...

    def on_drain(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback`, from any thread, when draining begins. Returns a function that undoes this."""
        ...

    async def authenticate(self, name: str, headers: Mapping[str, str], user: Any = None) -> Any:
        """Call the `auth` hook, and return the caller's identity; `user` without a hook.

        Args:
            name: the requested endpoint or route.
            headers: those of the caller, names in lower case.
            user: the identity from the host's own middleware.

        Raises:
            Unauthenticated: the hook returned None. The hook's own exceptions.
        """
        ...

    async def open(
        self,
        name: str,
        headers: Mapping[str, str],
        user: Any = None,
        *,
        deadline: float | None = None,
        method: str = "",
    ) -> OpenedCall:
        """Open one call: authenticate the caller, then wait for the Runner until the deadline.

        The protocol calls `resize` when the request has arrived; if it reads the body after this, it calls `admit` before.
        This is not an async context manager, which would cost each request another coroutine: leaving awaits nothing.

        Args:
            name, headers, user: as for `authenticate`.
            deadline: a time of `time.monotonic`.
            method: that of the protocol: over HTTP its own, "websocket", or over gRPC "service/method".

        Raises:
            Unauthenticated, NotReady, DeadlineExceeded.
        """
        ...

    def refused(self, name: str, error: BaseException, method: str) -> None:
        """Called when a request for `name` is answered with an error and was not opened, for metrics."""
        ...

    def problem(self, error: BaseException) -> tuple[int, dict[str, Any], Headers]:
        """The status, JSON body and headers for an error; logs it if it is not the client's fault."""
        ...


#: Seconds of one stream's writing after which others get their turn.
LONGEST_TURN = 0.001


class LastWrite:
    """The writer, and the time since which nothing else wrote.

    One object, and no attributes of a class: to change those clears the caches of all its methods.
    """

    __slots__ = ("since", "writer")

    def __init__(self) -> None:
        self.writer: Any = None
        self.since = 0.0


last_write = LastWrite()
