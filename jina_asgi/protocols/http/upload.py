"""Receives an upload: the parts of a form, or one file, in memory or, above a limit, in temporary files.

Blocks are parsed and written in a thread, as a disk may be slow. The files are removed when the call
has ended; the thread, or the one that reads the parts, may still be at work then: the last one removes them.
"""

from __future__ import annotations

import asyncio
import logging
import mimetypes
import os
import re
import threading
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import IO, Protocol

from starlette.types import Receive

from jina_asgi.concurrency.offload import run_in_background, run_in_disk_thread
from jina_asgi.concurrency.tasks import is_cancel
from jina_asgi.documents import upload_files
from jina_asgi.errors import DeadlineExceeded, Overloaded, Unavailable
from jina_asgi.protocols.http.exchange import ClientGone, too_large
from jina_asgi.settings import Limits

logger = logging.getLogger("jina_asgi")

#: Bytes that are parsed at once; they need memory in addition to the limit.
_BLOCK = 2**18
#: A body of at most this size is parsed on the event loop.
_SMALL = 2**14
#: Seconds for which the files of an abandoned call stay: a batch that has just begun locks them in this time.
_BEGINS_WITHIN = 2.0
#: Most bytes of a part's headers, and of an endpoint's name.
_HEAD = 1024
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,16}")


class Part:
    """One part: its name, its headers, and its bytes in memory or in a file.

    Attributes:
        name: the field's name.
        media: its content type; "" without one.
        filename: None if it is not a file.
        size: in bytes.
        path: its file; "" while it is in memory.
    """

    __slots__ = ("_pieces", "filename", "media", "name", "path", "size")

    def __init__(self, name: str, data: bytes = b"", media: str = "", filename: str | None = None) -> None:
        self.name, self.media, self.filename = name, media, filename
        self._pieces, self.size, self.path = [data] if data else [], len(data), ""

    @property
    def data(self) -> bytes:
        """All its bytes, read again if they are in a file."""
        if self.path:
            with open(self.path, "rb") as file:
                return file.read()
        if len(self._pieces) > 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0] if self._pieces else b""

    @property
    def head(self) -> bytes:
        """Its first bytes, without leading space."""
        if self.path:
            with open(self.path, "rb") as file:
                return file.read(_HEAD).lstrip()
        head = b""
        for piece in self._pieces:
            head += piece[: _HEAD - len(head)]
            if len(head) == _HEAD:
                break
        return head.lstrip()

    @property
    def suffix(self) -> str:
        """The suffix of the file's name, such as ".png", if it is plain; else that of its content type."""
        found = os.path.splitext(self.filename or "")[1]
        return found if _SUFFIX.fullmatch(found) else mimetypes.guess_extension(self.media) or ""

    def add(self, data: bytes) -> None:
        """Add bytes in memory."""
        self._pieces.append(data)
        self.size += len(data)

    def write_to(self, path: str, file: IO[bytes]) -> int:
        """Move the bytes in memory to a file; return their number."""
        file.writelines(self._pieces)
        self._pieces, self.path = [], path
        return self.size


class Parser(Protocol):
    """Parses a body block by block, and adds its parts to an upload."""

    def write(self, block: bytes) -> None:
        """Take the next block apart."""
        ...

    def end(self) -> None:
        """The body is over."""
        ...

    def close(self) -> None:
        """Free all references to this object, so that no cycle is left."""
        ...


class Upload:
    """One request's form or file, until `close`.

    Args:
        limits: those of the application.
        paths: the fields that get the path of a file, and need no memory.
        parser: parses the body.
    """

    def __init__(self, limits: Limits, paths: AbstractSet[str], parser: Callable[[Upload], Parser]) -> None:
        self.parts: list[Part] = []
        self.size = 0
        self._limits, self._paths = limits, paths
        self._room = limits.upload_memory
        self._folder, self._files = "", 0
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._parser: Parser | None = parser(self)

    def expected(self, announced: int) -> int:
        """The memory that a body of this size may need, for its place in the queue."""
        return min(announced, self._limits.upload_memory) if self._paths else announced

    @property
    def weight(self) -> int:
        """The bytes that are, or will be, in memory: all except files of which the path is used."""
        return sum(part.size for part in self.parts if not (part.path and part.name in self._paths))

    async def receive(self, receive: Receive, until: float | None) -> Upload:
        """Receive the body; return this upload.

        Raises:
            TooLarge: it is over the limits. InvalidRequest: it is not a form. ClientGone: the client left meanwhile.
            Overloaded: there is no room for its files. DeadlineExceeded: the time `until` has passed.
        """
        limit, more, size = self._limits.body, True, 0
        while more:
            chunks: list[bytes] = []
            held = 0
            while more and held < _BLOCK:
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientGone
                chunks.append(message.get("body", b""))
                held += len(chunks[-1])
                more = message.get("more_body", False)
                if size + held > limit:
                    raise too_large(limit)
            size += held
            block = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            if not more and size <= min(_SMALL, self._limits.upload_memory):
                self._write(block, last=True)
            else:
                await run_in_disk_thread(until, self._write, block, last=not more)
        return self

    def begin(self, part: Part) -> None:
        """Begin a part."""
        self._end()
        self.parts.append(part)

    def add(self, data: bytes) -> None:
        """Add bytes to the current part."""
        part = self.parts[-1]
        if self._file is None:
            if len(data) <= self._room:
                self._room -= len(data)
                part.add(data)
                return
            path, self._file = self._new_file(part)
            self._room += part.write_to(path, self._file)
        self._file.write(data)
        part.size += len(data)

    def take(self, name: str) -> str:
        """Remove a part that is not a field, and return its text; "" if there is none."""
        found = [part for part in self.parts if part.name == name and part.filename is None]
        self.parts = [part for part in self.parts if part not in found]
        return found[-1].head.decode(errors="replace").rstrip() if found else ""

    def path_of(self, part: Part) -> str:
        """The path of a part's file; a part in memory is written to one.

        Raises:
            Overloaded: there is no room for it.
        """
        if not part.path:
            with _room():
                path, file = self._new_file(part)
                with file:
                    part.write_to(path, file)
        return part.path

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Keep the files during this context, even if the call is abandoned.

        Raises:
            DeadlineExceeded: the call was abandoned before.
        """
        try:
            with self._lock:
                if self._closed:
                    raise DeadlineExceeded("the call was abandoned before its body was read")
                yield
        finally:
            if self._closed and (folder := self._taken()):
                upload_files.remove(folder)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Remove the files after this context; those of an abandoned call when no batch uses them any more."""
        try:
            yield
        except BaseException as error:
            self.close(may_go_on=_is_given_up(error))
            raise
        else:
            self.close(may_go_on=False)

    def close(self, *, may_go_on: bool) -> None:
        """The call has ended, or was abandoned."""
        self._closed = True
        folder = self._taken()
        if folder and may_go_on:
            asyncio.get_running_loop().call_later(_BEGINS_WITHIN, run_in_background, upload_files.abandon, folder)
        elif folder:
            run_in_background(upload_files.remove, folder)

    def _taken(self) -> str:
        """Returns the folder to remove; "" if there is none, or a thread uses it, which then removes it."""
        if not self._lock.acquire(blocking=False):
            return ""
        try:
            self._end()
            if self._parser is not None:
                self._parser.close()
            folder, self._folder, self.parts, self._parser = self._folder, "", [], None
        finally:
            self._lock.release()
        return folder

    def _write(self, block: bytes, *, last: bool) -> None:
        with self.at_work(), _room():
            assert self._parser is not None  # until it is closed
            self.size += len(block)
            self._parser.write(block)
            if last:
                self._parser.end()
                self._end()

    def _end(self) -> None:
        """End the current part."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _new_file(self, part: Part) -> tuple[str, IO[bytes]]:
        if not self._folder:
            self._folder = upload_files.new_folder()
        path = os.path.join(self._folder, f"{self._files}{part.suffix}")
        self._files += 1
        return path, open(path, "xb", opener=_private)  # closed with its part, or with the upload


class Alone:
    """Parses a body that is one file: it is one part."""

    def __init__(self, upload: Upload, part: Part) -> None:
        self._upload = upload
        upload.begin(part)

    def write(self, block: bytes) -> None:
        self._upload.add(block)

    def end(self) -> None:
        """The file ends with its body."""

    def close(self) -> None:
        """Only its upload refers to it, and frees it."""


def _is_given_up(error: BaseException) -> bool:
    return is_cancel(error) or isinstance(error, ClientGone | DeadlineExceeded | Unavailable)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        logger.error("the file of an upload cannot be written: %s", error)
        raise Overloaded("there is no room for the files of this upload; try again later", server_wide=False) from error
