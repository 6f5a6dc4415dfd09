"""The byte layout of frames: a writer, and an incremental reader.

A frame is a fixed header, the lengths of its docs, a msgpack head and the docs, each an opaque buffer: the pool host
merges and splits batches by moving buffers between lists. The heads are defined in `_heads`, the legal order of
frames in `_rules`. Pure: no asyncio, clock, os or logging. Anything malformed raises `ProtocolError` before memory
is allocated for it.

    length u32
request u64
kind u8
flags u8
head u32
docs u32     `length` counts what follows the header
    lengths    docs * u32
    head       msgpack
    bodies     one after the other

Where the flags say so, some docs are not in the frame but in shared memory: the top bit of such a doc's length is
set, and its body is a reference to the place.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Generator, Sequence, Sized

import msgspec

from jina_asgi.errors import ProtocolError, TooLarge

Buffer = bytes | memoryview

#: The largest frame accepted: 64 MiB of docs and a margin for the rest of the frame.
FRAME_LIMIT = (64 << 20) + (1 << 20)
#: The most docs in one frame: an empty doc takes 4 bytes on the wire, and ten times that once it is decoded.
DOCS_LIMIT = 1 << 17
#: Docs smaller than this are copied out of the received chunk, which they would otherwise keep alive.
COPIED_BELOW = 4096

#: The flag of a frame that has references among its docs, and the bit that marks a reference's length.
SHARED = 1
_ELSEWHERE = 1 << 31

_HEADER = struct.Struct("<IQBBII")
_HEADER_OF_ONE = struct.Struct("<IQBBIII")  # and the length of its only doc
_LENGTH = struct.Struct("<I")
HEADER_SIZE = _HEADER.size


class FrameKind(enum.IntEnum):
    """The kinds of frames: the first group is sent by the client, the second by the server; hello goes both ways.

    The third group is about the peer itself (ping and health), the fourth, which goes both ways, about shared memory.
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

    PING = 11  #: from the client
    PONG = 12  #: answers each ping
    NEWS = 13  #: from the server: whether it can answer calls at the moment

    SHARES = 14  #: the sender can read docs in shared memory
    RELEASE = 15  #: the sender no longer reads some docs in shared memory
    ENDED = 16  #: arenas in which the sender had placed docs were closed


# Comparing plain ints is several times faster than looking up an enumeration's member.
HELLO, CALL, STREAM, CANCEL, CREDIT = (int(member) for member in list(FrameKind)[:5])
RESULT, ITEM, END, ERROR, GOODBYE = (int(member) for member in list(FrameKind)[5:10])
PING, PONG, NEWS, SHARES, RELEASE, ENDED = (int(member) for member in list(FrameKind)[10:])


class Reference(msgspec.Struct, frozen=True, gc=False):
    """Locates a doc in shared memory; `descriptor` is the arena's file descriptor in the process that made it."""

    arena: int
    descriptor: int
    offset: int
    length: int

    def __len__(self) -> int:
        return self.length

    def packed(self) -> bytes:
        return _REFERENCE.pack(self.arena, self.descriptor, self.offset, self.length)


_REFERENCE = struct.Struct("<IIQQ")


def _unknown(reference: Reference) -> memoryview:
    raise ProtocolError("a doc was said to lie in shared memory, and there is none on this connection")


# A msgspec Struct, because a frame is made for every message: 0.2 us where a frozen dataclass takes 1.
class Frame(msgspec.Struct, frozen=True, gc=False):
    """A received frame: `kind` is a `FrameKind` as a plain int, `head` is msgpack that is not decoded yet."""

    kind: int
    request: int
    head: bytes = b""
    docs: Sequence[Buffer] = ()

    @property
    def size(self) -> int:
        """The size of this frame in memory, in bytes."""
        return size_of(self.head, self.docs)


def size_of(head: bytes, docs: Sequence[Sized]) -> int:
    """The size of a frame in bytes without the lengths of its docs: what flow control counts on both sides."""
    return HEADER_SIZE + len(head) + sum(map(len, docs))


def write_frame(
    out: list[Buffer],
    kind: int,
    request: int,
    head: bytes = b"",
    docs: Sequence[Buffer | Reference] = (),
    limit: int = FRAME_LIMIT,
) -> int:
    """Appends one frame to `out`, as buffers to be written in order; returns the number of bytes.

    Raises:
        TooLarge: the frame is over `limit` bytes, or has too many docs; nothing was appended.
    """
    if type(docs) is list and Reference in map(type, docs):
        return _write_shared(out, kind, request, head, docs, limit)
    return _write_sent(out, kind, request, head, docs, limit)  # type: ignore[arg-type]  # none of them is a reference


def _write_sent(out: list[Buffer], kind: int, request: int, head: bytes, docs: Sequence[Buffer], limit: int) -> int:
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


def _write_shared(
    out: list[Buffer], kind: int, request: int, head: bytes, docs: Sequence[Buffer | Reference], limit: int
) -> int:
    bodies = [doc.packed() if isinstance(doc, Reference) else doc for doc in docs]
    marks = [_ELSEWHERE if isinstance(doc, Reference) else 0 for doc in docs]
    length = 4 * len(docs) + len(head) + sum(map(len, bodies))
    if max(length, sum(map(len, docs))) > limit or len(docs) > DOCS_LIMIT:
        raise TooLarge(
            f"{sum(map(len, docs))} bytes in {len(docs)} docs are over the connection's limits of {limit} and {DOCS_LIMIT}"
        )
    lengths = [len(body) | mark for body, mark in zip(bodies, marks, strict=True)]
    out.append(_HEADER.pack(length, request, kind, SHARED, len(head), len(docs)))
    out.append(struct.pack(f"<{len(docs)}I", *lengths) + head)
    out += bodies
    return HEADER_SIZE + length


class FrameReader:
    """Parses received chunks into frames and keeps the incomplete rest. `find` resolves references to shared memory."""

    __slots__ = ("_broken", "_need", "_rest", "find", "limit")

    def __init__(self, limit: int = FRAME_LIMIT, find: Callable[[Reference], memoryview] = _unknown) -> None:
        #: The largest frame accepted, in bytes after the header; may be changed between frames.
        self.limit = limit
        self.find = find
        self._rest = bytearray()
        self._need = HEADER_SIZE
        self._broken = ""

    @property
    def pending(self) -> int:
        """The number of bytes buffered of an incomplete frame."""
        return len(self._rest)

    def feed(self, chunk: bytes) -> Generator[Frame]:
        """Yields the frames that `chunk` completes. Iterate to the end: a frame is parsed when it is asked for.

        Raises:
            ProtocolError: the bytes are no frames; every later chunk raises it again.
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
        """Continues with the frame in `_rest`: computes what it needs once its header is complete, then parses it."""
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
        if not HELLO <= kind <= ENDED:
            raise self._fail(f"no frame is of kind {kind}")
        if flags not in (0, SHARED):
            raise self._fail(f"no frame has the flags {flags:#x}")
        if length > self.limit:
            raise self._fail(f"a frame of {length} bytes is over the limit of {self.limit}")
        if count > DOCS_LIMIT:
            raise self._fail(f"a frame of {count} docs is over the limit of {DOCS_LIMIT}")
        if head + 4 * count > length or (not count and head != length):
            raise self._fail(f"a frame of {length} bytes cannot hold a head of {head} bytes and {count} docs")

    def _parse(self, header: tuple[int, ...], data: Buffer, start: int, stop: int) -> Frame:
        _, request, kind, flags, head_length, count = header
        body = start + 4 * count + head_length
        head = bytes(data[body - head_length : body])
        if not count:
            return Frame(kind, request, head)
        if flags:
            return Frame(kind, request, head, self._shared_docs(data, start, body, stop, count))
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

    def _shared_docs(self, data: Buffer, start: int, body: int, stop: int, count: int) -> list[Buffer]:
        """The docs of a frame, some of which are references."""
        lengths = struct.unpack_from(f"<{count}I", data, start)
        if sum(length & ~_ELSEWHERE for length in lengths) != stop - body:
            raise self._fail(f"docs and references do not fill the {stop - body} bytes that the frame has")
        view, docs = memoryview(data), list[Buffer]()
        for length in lengths:
            doc = bytes(view[body : body + (length & ~_ELSEWHERE)])
            body += len(doc)
            if length & _ELSEWHERE:
                if len(doc) != _REFERENCE.size:
                    raise self._fail(f"no reference has {len(doc)} bytes")
                try:
                    docs.append(self.find(Reference(*_REFERENCE.unpack(doc))))
                except ProtocolError as error:
                    raise self._fail(error.message) from error
            else:
                docs.append(doc)
        return docs

    def _fail(self, message: str) -> ProtocolError:
        self._broken = message
        self._rest = bytearray()
        return ProtocolError(message)
