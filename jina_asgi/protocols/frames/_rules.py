"""Which frame is legal when: the state of one connection as each side sees it.

The rules. The first frame each way is hello; it settles the version. The asking side numbers its requests
upwards and never uses a number twice. The answering side ends every call by exactly one result or error, every
stream by one end or error, after any number of items within the credit it was given; a cancelled request of
either kind also by end, sent once nothing of it runs any more. After goodbye no new request is started.

An answer to a request that is not open (late, unknown or a second one) is dropped and counted and never given
to another; a side that keeps sending such is broken. Everything else out of order is broken at once. Pure: no
asyncio, clock, os or logging; frames go in, the request that each concerns comes out.
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

#: Answers to requests that are not open that a side may send before its connection counts as broken.
STRAYS_LIMIT = 16
#: What a stream may send ahead of its reader. One item may pass `WINDOW_BYTES`: it was sent while there was room.
WINDOW_ITEMS = 16
WINDOW_BYTES = 256 << 10
#: What either side may say of shared memory at any time after the hello.
_OF_MEMORY = (_layout.SHARES, _layout.RELEASE, _layout.ENDED)

HolderT = TypeVar("HolderT")


def agree(low: int, high: int, versions: tuple[int, int] = VERSIONS) -> int:
    """The highest version that both ranges have.

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
    """The hello that opens a connection.

    Raises:
        ProtocolError: the other side opens with something else.
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
    """What a stream may still send, as its sender counts it."""

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
    """What a stream may still send, as its receiver counts it, and when to allow more."""

    __slots__ = ("_credit", "_half", "_items", "_size", "items", "size")

    def __init__(self, items: int = WINDOW_ITEMS, size: int = WINDOW_BYTES) -> None:
        self.items, self.size = items, size
        self._credit = Credit(items, size)
        self._half = ((items + 1) // 2, (size + 1) // 2)
        self._items = self._size = 0

    def arrived(self, size: int) -> None:
        """Count an item that came in.

        Raises:
            ProtocolError: the sender had no credit for it.
        """
        if not self._credit.open:
            raise ProtocolError("an item came for which the stream had no credit")
        self._credit.spend(size)

    def consumed(self, size: int) -> CreditHead | None:
        """Count an item that the reader took; the credit to send, once half of the window has been read."""
        self._items += 1
        self._size += size
        if self._items < self._half[0] and self._size < self._half[1]:
            return None
        credit = CreditHead(self._items, self._size)
        self._credit.add(credit)
        self._items = self._size = 0
        return credit


class Asked(Generic[HolderT]):
    """An open request on the asking side; `holder` is whatever waits for its answer."""

    __slots__ = ("cancelled", "holder", "number", "window")

    def __init__(self, number: int, holder: HolderT, window: Window | None = None) -> None:
        self.number, self.holder, self.window = number, holder, window
        self.cancelled = False


class Asking(Generic[HolderT]):
    """The state of a connection on the side that asks."""

    def __init__(self) -> None:
        self.open: dict[int, Asked[HolderT]] = {}
        #: Set by the answering side's hello.
        self.hello: Hello | None = None
        #: The error with which the other side ended the connection.
        self.refusal: JinaASGIError | None = None
        #: After goodbye: the last request that may have been started.
        self.last_started: int | None = None
        #: Open requests that somebody still waits for.
        self.waiting = 0
        #: Pings that were answered, what was said with the last, and why the other side can answer nothing else now.
        self.pongs, self.trouble = 0, ""
        self.figures: Mapping[str, Any] = EMPTY
        #: Answers that came for a request after it was cancelled, and for no open request at all.
        self.late = self.strays = 0
        self._last = 0

    def ask(self, holder: HolderT, window: Window | None = None) -> Asked[HolderT]:
        """Open a request; a stream if it has a window."""
        self._last += 1
        asked = self.open[self._last] = Asked(self._last, holder, window)
        self.waiting += 1
        return asked

    def withdraw(self, asked: Asked[HolderT]) -> None:
        """Forget a request that was never sent."""
        del self.open[asked.number]
        self.waiting -= 1

    def cancel(self, asked: Asked[HolderT]) -> bool:
        """Note that nobody waits for an answer any more; False if the request was over, or cancelled, already."""
        if asked.cancelled or asked.number not in self.open:
            return False
        asked.cancelled = True
        self.waiting -= 1
        return True

    def started(self, asked: Asked[HolderT]) -> bool:
        """Whether the answering side may have started a request that it did not answer."""
        return self.last_started is None or asked.number <= self.last_started

    def receive(self, frame: Frame) -> Asked[HolderT] | None:
        """Take a frame; the request that it answers, or None where there is nothing to tell anybody.

        A cancelled request comes out for its last frame only, `cancelled` set; the frame's content is not for use.

        Raises:
            ProtocolError: the frame is not legal now.
        """
        kind = frame.kind
        if self.hello is None or frame.request == 0:
            self._receive_outside(frame)
            return None
        if not _layout.RESULT <= kind <= _layout.ERROR:
            raise ProtocolError(f"the answering side sent {_name(frame)}")
        asked = self.open.get(frame.request)
        if asked is None:
            self._stray(frame)
            return None
        if asked.window is None:
            legal = kind != _layout.ITEM and (kind != _layout.END or asked.cancelled)
        else:
            legal = kind != _layout.RESULT
        if not legal:
            raise ProtocolError(f"{_name(frame)} answers a {'call' if asked.window is None else 'stream'}")
        if kind == _layout.ITEM:
            assert asked.window is not None
            asked.window.arrived(frame.size)
            if asked.cancelled:
                self.late += 1
                return None
            return asked
        del self.open[frame.request]
        if not asked.cancelled:
            self.waiting -= 1
        elif kind != _layout.END:
            self.late += 1
        return asked

    def _receive_outside(self, frame: Frame) -> None:
        """A frame that belongs to no request: hello, goodbye, or the error that ends the connection."""
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
                self.figures = read(frame, PongHead).figures
        elif frame.kind == _layout.NEWS:
            self.trouble = read(frame, NewsHead).trouble
        elif frame.kind not in _OF_MEMORY:
            raise ProtocolError(f"{_name(frame)} without a request")

    def _stray(self, frame: Frame) -> None:
        self.strays += 1
        if self.strays > STRAYS_LIMIT:
            raise ProtocolError(f"{self.strays} answers to requests that are not open, the last {_name(frame)}")


class Answering(Generic[HolderT]):
    """The state of a connection on the side that answers; `HolderT` is whatever runs a request."""

    def __init__(self) -> None:
        self.open: dict[int, HolderT] = {}
        #: Set by the asking side's hello.
        self.hello: Hello | None = None
        #: Whether goodbye was sent: requests that come now are refused.
        self.draining = False
        self.last = 0

    def receive(self, frame: Frame) -> HolderT | None:
        """Take a frame; the open request that a cancel or credit concerns, None for others and for one that is over.

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
