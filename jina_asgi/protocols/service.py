"""The interface between protocols and what they serve: a protocol parses a request, opens a call, and writes the answer.

Loading, readiness, draining, authentication and admission are behind it, and known to no protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from jina_asgi.protocols.problems import Headers
from jina_asgi.settings import Limits
from jina_asgi.types import Context, Endpoint, Runner, Ticket


class OpenedCall(Protocol):
    """One call that may run: `with await service.open(...) as opened`. Leaving gives its place in the queue back.

    Attributes:
        runner: answers the call, on this event loop.
        context: the call's; the protocol fills in `request_id`.
    """

    runner: Runner
    context: Context

    @property
    def endpoint(self) -> Endpoint | None:
        """The endpoint that answers the name which was opened, or "/default"; None where neither is there."""
        ...

    def admit(self, size: int) -> None:
        """Take a place in the queue for a request of `size` bytes (0: not known), in exchange for an earlier one.

        Raises:
            Overloaded: the queue is full. NotReady: the Runner is not running.
        """
        ...

    def resize(self, size: int) -> None:
        """The request is here, of `size` bytes: admit it where it has no place as large, and check its deadline.

        Raises:
            DeadlineExceeded, Overloaded, NotReady.
        """
        ...

    def detach(self) -> Ticket | None:
        """The place in the queue, which the caller closes from now on: when the answer has been sent."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Service(Protocol):
    """A Runner as protocols serve it, with what the application decides for all its endpoints."""

    @property
    def limits(self) -> Limits: ...

    @property
    def has_auth(self) -> bool:
        """Whether an `auth` hook says who the caller is."""
        ...

    @property
    def expose_errors(self) -> bool:
        """Whether clients see the message of an Executor's own exception."""
        ...

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The endpoints by name.

        Raises:
            NotReady: they are known once the Runner has loaded.
        """
        ...

    @property
    def current_endpoints(self) -> Mapping[str, Endpoint] | None:
        """The endpoints by name; None while the Runner has to load first, as it may come with others."""
        ...

    async def loaded(self) -> Mapping[str, Endpoint]:
        """Wait until the endpoints are known, as calls do; return them.

        Raises:
            NotReady: they are not known in time.
        """
        ...

    def start(self) -> Any:
        """Begin to load, where nothing has yet; returns at once."""
        ...

    def unhealthy_reason(self) -> str:
        """Why no call can be answered now, for a client; "" where calls are answered."""
        ...

    @property
    def is_draining(self) -> bool:
        """Whether open calls are finished, and no new one should begin."""
        ...

    def on_drain(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called, from any thread, when draining begins. Returns what undoes this."""
        ...

    async def authenticate(self, name: str, headers: Mapping[str, str], user: Any = None) -> Any:
        """Ask the `auth` hook who the caller is; `user` where there is no hook.

        Args:
            name: the endpoint or the route that is asked for.
            headers: the caller's: names in lower case.
            user: the caller as the host's own middleware knows it.

        Raises:
            Unauthenticated: the hook answered None. What the hook raises.
        """
        ...

    async def open(
        self, name: str, headers: Mapping[str, str], user: Any = None, *, deadline: float | None = None
    ) -> OpenedCall:
        """Open one call: authenticate the caller, then wait for the Runner until the deadline.

        The protocol calls `resize` once the request is here, and before it `admit`, where it reads the body itself.
        No async context manager: this is one coroutine on the way of each request, and leaving awaits nothing.

        Args:
            name, headers, user: as for `authenticate`.
            deadline: on `time.monotonic`'s clock.

        Raises:
            Unauthenticated, NotReady, DeadlineExceeded.
        """
        ...

    def problem(self, error: BaseException) -> tuple[int, dict[str, Any], Headers]:
        """The status, JSON body and headers for an error; logs it if it is not the client's fault."""
        ...
