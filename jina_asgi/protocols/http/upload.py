"""An upload: the parts of a form, or one file alone, as they arrive. Above a bound they are in temporary files.

A block is taken apart and written in a thread of its own, since a disk may be slow. The files are removed when the call
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
from jina_asgi.protocols.http.exchange import ClientGone
from jina_asgi.protocols.http.headers import too_large
from jina_asgi.settings import Limits

logger = logging.getLogger("jina_asgi")

#: Bytes that are taken apart at once; so many are in memory besides those that the limit allows.
_BLOCK = 2**18
#: Bytes of a whole body that is taken apart on the event loop.
_SMALL = 2**14
#: Seconds for which the files of a call that was given up stay: a batch that has just begun locks them in that time.
_BEGINS_WITHIN = 2.0
#: Most bytes of a part's headers, and of an endpoint's name.
_HEAD = 1024
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,16}")


class Part:
    """One part: its name, what its client says of it, and its bytes, in memory or in a file.

    Attributes:
        name: of the field that it is for.
        media: its content type, "" where none is given.
        filename: None where it is no file.
        size: in bytes.
        path: the file that it is in; "" while it is in memory.
    """

    __slots__ = ("_pieces", "filename", "media", "name", "path", "size")

    def __init__(self, name: str, data: bytes = b"", media: str = "", filename: str | None = None) -> None:
        self.name, self.media, self.filename = name, media, filename
        self._pieces, self.size, self.path = [data] if data else [], len(data), ""

    @property
    def data(self) -> bytes:
        """All its bytes, read anew where they are in a file."""
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
        """The suffix of a file's name, such as ".png", where it has a plain one; else that of its content type."""
        found = os.path.splitext(self.filename or "")[1]
        return found if _SUFFIX.fullmatch(found) else mimetypes.guess_extension(self.media) or ""

    def add(self, data: bytes) -> None:
        """More bytes, into memory."""
        self._pieces.append(data)
        self.size += len(data)

    def write_to(self, path: str, file: IO[bytes]) -> int:
        """Move what is in memory to a file; how many bytes that was."""
        file.writelines(self._pieces)
        self._pieces, self.path = [], path
        return self.size


class Parser(Protocol):
    """Takes a body apart, block after block, and adds its parts to an upload."""

    def write(self, block: bytes) -> None:
        """Take the next block apart."""
        ...

    def end(self) -> None:
        """The body is over."""
        ...

    def close(self) -> None:
        """Let go of all that refers to this: no cycle is left."""
        ...


class Upload:
    """One request's form or file, until `close`.

    Args:
        limits: of the application.
        paths: the fields that are given the path of a file: what is for them is no memory.
        parser: what takes the body apart.
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
        """How much of a body of so many bytes may be in memory at once, for its place in the queue."""
        return min(announced, self._limits.upload_memory) if self._paths else announced

    @property
    def weight(self) -> int:
        """Bytes that are, or will be, in memory: all but those of files whose path is asked for."""
        return sum(part.size for part in self.parts if not (part.path and part.name in self._paths))

    async def receive(self, receive: Receive, until: float | None) -> Upload:
        """Take the body as it arrives; this upload itself.

        Raises:
            TooLarge: over the limits. InvalidRequest: it is no form. ClientGone: the client left within it.
            Overloaded: there is no room for its files. DeadlineExceeded: the moment `until` has passed.
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
        """A part begins; what follows belongs to it."""
        self._end()
        self.parts.append(part)

    def add(self, data: bytes) -> None:
        """More bytes of the part that began last."""
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
        """Take out the text of a part that is no field; "" where there is none."""
        found = [part for part in self.parts if part.name == name and part.filename is None]
        self.parts = [part for part in self.parts if part not in found]
        return found[-1].head.decode(errors="replace").rstrip() if found else ""

    def path_of(self, part: Part) -> str:
        """The path of a part's file, which is made where the part is in memory.

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
        """While this lasts the files stay, whatever becomes of the call.

        Raises:
            DeadlineExceeded: the call was given up before.
        """
        try:
            with self._lock:
                if self._closed:
                    raise DeadlineExceeded("the call was given up before its body was read")
                yield
        finally:
            if self._closed and (folder := self._taken()):
                upload_files.remove(folder)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Remove the files when this has ended; those of a call that was given up, when no batch uses them any more."""
        try:
            yield
        except BaseException as error:
            self.close(may_go_on=_is_given_up(error))
            raise
        else:
            self.close(may_go_on=False)

    def close(self, *, may_go_on: bool) -> None:
        """The call is over, or was given up."""
        self._closed = True
        folder = self._taken()
        if folder and may_go_on:
            asyncio.get_running_loop().call_later(_BEGINS_WITHIN, run_in_background, upload_files.abandon, folder)
        elif folder:
            run_in_background(upload_files.remove, folder)

    def _taken(self) -> str:
        """The folder, for who is to remove it; "" where there is none, or a thread is at work there, which then does."""
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
        """The part that began last is whole."""
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
    """A body that is one file: all of it is one part."""

    def __init__(self, upload: Upload, part: Part) -> None:
        self._upload = upload
        upload.begin(part)

    def write(self, block: bytes) -> None:
        self._upload.add(block)

    def end(self) -> None:
        """A file ends where its body does."""

    def close(self) -> None:
        """It is referred to by its upload alone, which lets go of it."""


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
