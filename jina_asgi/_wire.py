"""The layout of a frame: bytes out, and bytes in by an incremental reader.

A frame is a fixed header, the lengths of its docs, a msgpack head and the docs, each an opaque buffer: a host
merges and splits batches by moving buffers from one list to another. What heads mean is `_wire_heads`'s, which
frame is legal when is `_wire_state`'s. Pure: no asyncio, clock, os or logging. Whatever is broken raises
`ProtocolError` before anything is allocated for it.

    length u32 | request u64 | kind u8 | flags u8 | head u32 | docs u32     `length` counts what follows the header
    lengths    docs * u32
    head       msgpack
    bodies     one after the other
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Generator, Sequence

import msgspec

from jina_asgi.errors import ProtocolError, TooLarge

Buffer = bytes | memoryview

#: The largest frame taken: 64 MiB of docs and a margin for what surrounds them.
FRAME_LIMIT = (64 << 20) + (1 << 20)
#: The most docs in one frame: an empty one takes 4 bytes on the wire, and ten times that once it is read.
DOCS_LIMIT = 1 << 17
#: Docs smaller than this are copied out of the chunk they came in, which they would otherwise keep alive.
COPIED_BELOW = 4096

_HEADER = struct.Struct("<IQBBII")
_HEADER_OF_ONE = struct.Struct("<IQBBIII")  # and the length of its only doc
_LENGTH = struct.Struct("<I")
HEADER_SIZE = _HEADER.size


class FrameKind(enum.IntEnum):
    """What a frame says. The asking side sends the first group, the answering side the second; hello goes both ways.

    The third group is about the other side itself: whether its loop still turns, and how it is.
    """

    HELLO = 1
    CALL = 2
    STREAM = 3
    CANCEL = 4
    CREDIT = 5

    RESULT = 6
    ITEM = 7
    END = 8
    ERROR = 9
    GOODBYE = 10

    PING = 11  #: from the asking side
    PONG = 12  #: answers each ping
    NEWS = 13  #: from the answering side: whether it can answer just now


# Comparing plain ints is several times faster than looking a member up in the enumeration.
HELLO, CALL, STREAM, CANCEL, CREDIT = (int(member) for member in list(FrameKind)[:5])
RESULT, ITEM, END, ERROR, GOODBYE = (int(member) for member in list(FrameKind)[5:10])
PING, PONG, NEWS = (int(member) for member in list(FrameKind)[10:])


# A msgspec Struct, because a frame is made for every message: 0.2 us where a frozen dataclass takes 1.
class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame as it came: `kind` is a `FrameKind` as a plain int, `head` is msgpack not yet decoded."""

    kind: int
    request: int
    head: bytes = b""
    docs: Sequence[Buffer] = ()

    @property
    def size(self) -> int:
        """The bytes that keeping this frame takes."""
        return size_of(self.head, self.docs)


def size_of(head: bytes, docs: Sequence[Buffer]) -> int:
    """The bytes of a frame, but for the lengths of its docs: what flow control counts on both sides."""
    return HEADER_SIZE + len(head) + sum(map(len, docs))


def write_frame(
    out: list[Buffer], kind: int, request: int, head: bytes = b"", docs: Sequence[Buffer] = (), limit: int = FRAME_LIMIT
) -> int:
    """Append one frame to `out`, as buffers to be written one after the other; how many bytes that is.

    Raises:
        TooLarge: the frame is over `limit` bytes, or has too many docs; nothing was appended.
    """
    count = len(docs)
    if count == 1:  # most are
        size = len(docs[0])
        length = 4 + len(head) + size
        if length <= limit:
            out += (_HEADER_OF_ONE.pack(length, request, kind, 0, len(head), 1, size), head, docs[0])
            return HEADER_SIZE + length
    lengths = [len(doc) for doc in docs]
    length = 4 * count + len(head) + sum(lengths)
    if length > limit or count > DOCS_LIMIT:
        raise TooLarge(
            f"a frame of {length} bytes and {count} docs is over the connection's limits of {limit} and {DOCS_LIMIT}"
        )
    out.append(_HEADER.pack(length, request, kind, 0, len(head), count) + struct.pack(f"<{count}I", *lengths) + head)
    out += docs
    return HEADER_SIZE + length


class FrameReader:
    """Takes chunks as they come, gives the frames that are complete, keeps what is left of the last one."""

    __slots__ = ("_broken", "_need", "_rest", "limit")

    def __init__(self, limit: int = FRAME_LIMIT) -> None:
        #: The largest frame taken, in bytes after the header; may be changed between frames.
        self.limit = limit
        self._rest = bytearray()
        self._need = HEADER_SIZE
        self._broken = ""

    @property
    def pending(self) -> int:
        """The bytes kept of a frame that is not complete."""
        return len(self._rest)

    def feed(self, chunk: bytes) -> Generator[Frame]:
        """The frames that `chunk` completes. Iterate to the end: a frame is parsed when it is asked for.

        Raises:
            ProtocolError: these are not frames; every later chunk raises it again.
        """
        if self._broken:
            raise ProtocolError(self._broken)
        offset, end = 0, len(chunk)
        while self._rest and offset < end:
            view = memoryview(chunk)
            taken = view[offset : offset + self._need - len(self._rest)]
            self._rest += taken
            offset += len(taken)
            frame = self._resume()
            if frame is not None:
                yield frame
        while end - offset >= HEADER_SIZE:
            header = _HEADER.unpack_from(chunk, offset)
            self._check(header)
            stop = offset + HEADER_SIZE + header[0]
            if stop > end:
                break
            yield self._parse(header, chunk, offset + HEADER_SIZE, stop)
            offset = stop
        if offset < end:
            self._rest += memoryview(chunk)[offset:]
            self._resume()

    def _resume(self) -> Frame | None:
        """Go on with the frame in `_rest`: learn what it needs once its header is there, give it once it is whole."""
        if len(self._rest) < self._need:
            return None
        header = _HEADER.unpack_from(self._rest)
        if self._need == HEADER_SIZE:
            self._check(header)
            self._need += header[0]
            if len(self._rest) < self._need:
                return None
        whole, self._rest, self._need = self._rest, bytearray(), HEADER_SIZE
        return self._parse(header, memoryview(whole).toreadonly(), HEADER_SIZE, len(whole))

    def _check(self, header: tuple[int, ...]) -> None:
        length, _, kind, flags, head, count = header
        if not HELLO <= kind <= NEWS:
            raise self._fail(f"no frame is of kind {kind}")
        if flags:
            raise self._fail(f"no frame has the flags {flags:#x}")
        if length > self.limit:
            raise self._fail(f"a frame of {length} bytes is over the limit of {self.limit}")
        if count > DOCS_LIMIT:
            raise self._fail(f"a frame of {count} docs is over the limit of {DOCS_LIMIT}")
        if head + 4 * count > length or (not count and head != length):
            raise self._fail(f"a frame of {length} bytes cannot hold a head of {head} bytes and {count} docs")

    def _parse(self, header: tuple[int, ...], data: Buffer, start: int, stop: int) -> Frame:
        _, request, kind, _, head_length, count = header
        body = start + 4 * count + head_length
        head = bytes(data[body - head_length : body])
        if not count:
            return Frame(kind, request, head)
        if count == 1:
            (length,) = _LENGTH.unpack_from(data, start)
            if length == stop - body:
                only = bytes(data[body:stop]) if length < COPIED_BELOW else memoryview(data)[body:stop]
                return Frame(kind, request, head, (only,))
        view = memoryview(data)
        lengths = struct.unpack_from(f"<{count}I", data, start)
        if sum(lengths) != stop - body:
            raise self._fail(f"docs of {sum(lengths)} bytes do not fill the {stop - body} bytes that the frame has")
        docs: list[Buffer] = []
        for length in lengths:
            doc = view[body : body + length]
            docs.append(bytes(doc) if length < COPIED_BELOW else doc)
            body += length
        return Frame(kind, request, head, docs)

    def _fail(self, message: str) -> ProtocolError:
        self._broken = message
        self._rest = bytearray()
        return ProtocolError(message)
