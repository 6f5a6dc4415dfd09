"""The state machine of a connection on each side: which frame is legal when.

The rules. The first frame each way is hello; it settles the version. The client numbers its requests upwards and never
reuses a number. The server ends every call with exactly one result or error, and every stream with one end or error
after any number of items within its credit; a cancelled request of either kind may also end with end, sent once
nothing of it runs any more. After goodbye no new request is started.

An answer to a request that is not open (late, unknown or a duplicate) is dropped and counted, and never given to
another request; a peer that keeps sending such answers breaks the connection. Any other violation breaks it at once.
Pure: no asyncio, clock, os or logging; frames go in, the requests that they concern come out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from jina_asgi.errors import JinaASGIError, ProtocolError
from jina_asgi.protocols.frames import _layout
from jina_asgi.protocols.frames._heads import (
    LEAST_LIMIT,
    MAGIC,
    VERSIONS,
    CreditHead,
    ErrorHead,
    GoodbyeHead,
    Hello,
    NewsHead,
    PongHead,
    error_of,
    read,
)
from jina_asgi.protocols.frames._layout import Frame, FrameKind
from jina_asgi.types import EMPTY

#: How many answers to requests that are not open a peer may send before its connection counts as broken.
STRAYS_LIMIT = 16
#: A stream's credit ahead of its reader. The last item may exceed `WINDOW_BYTES`: it was sent while there was room.
WINDOW_ITEMS = 16
WINDOW_BYTES = 256 << 10
#: The frames about shared memory, legal at any time after the hello.
_OF_MEMORY = (_layout.SHARES, _layout.RELEASE, _layout.ENDED)

HolderT = TypeVar("HolderT")


def agree(low: int, high: int, versions: tuple[int, int] = VERSIONS) -> int:
    """Returns the highest version that both ranges have.

    Raises:
        ProtocolError: they have none in common.
    """
    best = min(high, versions[1])
    if best < max(low, versions[0]):
        raise ProtocolError(
            f"no version of the frame protocol in common: {versions[0]} to {versions[1]} here, {low} to {high} there"
        )
    return best


def read_hello(frame: Frame) -> Hello:
    """Reads the hello that opens a connection.

    Raises:
        ProtocolError: the peer opens with something else.
    """
    if frame.kind != _layout.HELLO or frame.request or frame.docs:
        raise ProtocolError(f"expected a hello first, not {_name(frame)}")
    hello = read(frame, Hello)
    if hello.magic != MAGIC:
        raise ProtocolError(f"expected {MAGIC!r} in the hello, not {hello.magic[:64]!r}")
    if hello.limit < LEAST_LIMIT:
        raise ProtocolError(f"expected a limit of {LEAST_LIMIT} bytes a frame or more in the hello, not {hello.limit}")
    return hello


class Credit:
    """A stream's remaining credit, as its sender counts it."""

    __slots__ = ("items", "size")

    def __init__(self, items: int, size: int) -> None:
        self.items, self.size = items, size

    @property
    def open(self) -> bool:
        """Whether an item of any size may be sent now."""
        return self.items > 0 and self.size > 0

    def spend(self, size: int) -> None:
        self.items -= 1
        self.size -= size

    def add(self, credit: CreditHead) -> None:
        self.items += credit.items
        self.size += credit.size


class Window:
    """A stream's remaining credit, as its receiver counts it; decides when to grant more."""

    __slots__ = ("_credit", "_half", "_items", "_size", "items", "size")

    def __init__(self, items: int = WINDOW_ITEMS, size: int = WINDOW_BYTES) -> None:
        self.items, self.size = items, size
        self._credit = Credit(items, size)
        self._half = ((items + 1) // 2, (size + 1) // 2)
        self._items = self._size = 0

    def arrived(self, size: int) -> None:
        """Counts an item that arrived.

        Raises:
            ProtocolError: the sender had no credit for it.
        """
        if not self._credit.open:
            raise ProtocolError("an item came for which the stream had no credit")
        self._credit.spend(size)

    def consumed(self, size: int) -> CreditHead | None:
        """Counts an item that was read; returns the credit to grant once half of the window has been read, else None."""
        self._items += 1
        self._size += size
        if self._items < self._half[0] and self._size < self._half[1]:
            return None
        credit = CreditHead(self._items, self._size)
        self._credit.add(credit)
        self._items = self._size = 0
        return credit


class PendingRequest(Generic[HolderT]):
    """A request on the client side that is not answered yet; `holder` receives its frames."""

    __slots__ = ("cancelled", "holder", "number", "window")

    def __init__(self, number: int, holder: HolderT, window: Window | None = None) -> None:
        self.number, self.holder, self.window = number, holder, window
        self.cancelled = False


class ClientState(Generic[HolderT]):
    """The state of a connection on the client side."""

    def __init__(self) -> None:
        self.open: dict[int, PendingRequest[HolderT]] = {}
        #: Set by the server's hello.
        self.hello: Hello | None = None
        #: The error with which the peer ended the connection.
        self.refusal: JinaASGIError | None = None
        #: After goodbye: the last request that may have been started.
        self.last_started: int | None = None
        #: How many open requests were not cancelled.
        self.waiting = 0
        #: The number of answered pings, and the server's last report of why it cannot answer calls.
        self.pongs, self.unhealthy_reason = 0, ""
        self.metrics: Mapping[str, Any] = EMPTY
        #: How many answers came for a request after it was cancelled, and for no open request at all.
        self.late = self.strays = 0
        self._last = 0

    def open_request(self, holder: HolderT, window: Window | None = None) -> PendingRequest[HolderT]:
        """Opens a request; a stream if it has a window."""
        self._last += 1
        request = self.open[self._last] = PendingRequest(self._last, holder, window)
        self.waiting += 1
        return request

    def withdraw(self, request: PendingRequest[HolderT]) -> None:
        """Forgets a request that was never sent."""
        del self.open[request.number]
        self.waiting -= 1

    def cancel(self, request: PendingRequest[HolderT]) -> bool:
        """Marks a request as cancelled; False if it was over or cancelled already."""
        if request.cancelled or request.number not in self.open:
            return False
        request.cancelled = True
        self.waiting -= 1
        return True

    def started(self, request: PendingRequest[HolderT]) -> bool:
        """Whether the server may have started a request that it did not answer."""
        return self.last_started is None or request.number <= self.last_started

    def receive(self, frame: Frame) -> PendingRequest[HolderT] | None:
        """Processes a frame; returns the request that it answers, or None where no request is concerned.

        A cancelled request is returned for its last frame only, with `cancelled` set; that frame's content must not be
        used.

        Raises:
            ProtocolError: the frame is not legal now.
        """
        kind = frame.kind
        if self.hello is None or frame.request == 0:
            self._receive_control(frame)
            return None
        if not _layout.RESULT <= kind <= _layout.ERROR:
            raise ProtocolError(f"the answering side sent {_name(frame)}")
        request = self.open.get(frame.request)
        if request is None:
            self._stray(frame)
            return None
        if request.window is None:
            legal = kind != _layout.ITEM and (kind != _layout.END or request.cancelled)
        else:
            legal = kind != _layout.RESULT
        if not legal:
            raise ProtocolError(f"{_name(frame)} answers a {'call' if request.window is None else 'stream'}")
        if kind == _layout.ITEM:
            assert request.window is not None
            request.window.arrived(frame.size)
            if request.cancelled:
                self.late += 1
                return None
            return request
        del self.open[frame.request]
        if not request.cancelled:
            self.waiting -= 1
        elif kind != _layout.END:
            self.late += 1
        return request

    def _receive_control(self, frame: Frame) -> None:
        """Processes a frame that belongs to no request: hello, goodbye, health, or the error that ends the connection."""
        if frame.kind == _layout.ERROR and frame.request == 0:
            self.refusal = error_of(read(frame, ErrorHead))
            raise ProtocolError(f"the other side ended the connection: {self.refusal}") from self.refusal
        if self.hello is None:
            hello = read_hello(frame)
            if not VERSIONS[0] <= hello.version <= VERSIONS[1]:
                raise ProtocolError(f"the other side chose version {hello.version} of {VERSIONS[0]} to {VERSIONS[1]}")
            self.hello = hello
        elif frame.kind == _layout.GOODBYE:
            self.last_started = read(frame, GoodbyeHead).last
        elif frame.kind == _layout.PONG:
            self.pongs += 1
            if frame.head:
                self.metrics = read(frame, PongHead).figures
        elif frame.kind == _layout.NEWS:
            self.unhealthy_reason = read(frame, NewsHead).trouble
        elif frame.kind not in _OF_MEMORY:
            raise ProtocolError(f"{_name(frame)} without a request")

    def _stray(self, frame: Frame) -> None:
        self.strays += 1
        if self.strays > STRAYS_LIMIT:
            raise ProtocolError(f"{self.strays} answers to requests that are not open, the last {_name(frame)}")


class ServerState(Generic[HolderT]):
    """The state of a connection on the server side; `HolderT` is the type that runs a request."""

    def __init__(self) -> None:
        self.open: dict[int, HolderT] = {}
        #: Set by the client's hello.
        self.hello: Hello | None = None
        #: Whether goodbye was sent: new requests are refused.
        self.draining = False
        self.last = 0

    def receive(self, frame: Frame) -> HolderT | None:
        """Processes a frame; returns the open request that a cancel or credit concerns, None for other frames.

        Raises:
            ProtocolError: the frame is not legal now.
        """
        kind = frame.kind
        if kind == _layout.ERROR and frame.request == 0:
            raise ProtocolError(f"the other side ended the connection: {read(frame, ErrorHead).message}")
        if self.hello is None:
            hello = read_hello(frame)
            agree(hello.low, hello.high)
            self.hello = hello
            return None
        if kind == _layout.CALL or kind == _layout.STREAM:
            if frame.request <= self.last:
                raise ProtocolError(f"{_name(frame)} has a number that was used, or is below one that was")
            self.last = frame.request
            return None
        if not frame.request and (kind == _layout.PING or kind in _OF_MEMORY):
            return None
        if kind != _layout.CANCEL and kind != _layout.CREDIT:
            raise ProtocolError(f"the asking side sent {_name(frame)}")
        if not 0 < frame.request <= self.last:
            raise ProtocolError(f"{_name(frame)} concerns a request that was never made")
        return self.open.get(frame.request)


def _name(frame: Frame) -> str:
    return f"the frame {FrameKind(frame.kind).name.lower()} of request {frame.request}"
