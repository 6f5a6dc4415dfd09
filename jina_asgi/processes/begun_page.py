"""Which requests a process has begun, in a page of memory that outlives it.

The number of a request is written as its work begins. After the process is killed the page still says so: what was
not begun may safely run elsewhere.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading

_PLACES = 512
_NUMBER = struct.Struct("<Q")


class Marks:
    """The page, shared by descriptor. A place holds the highest number of those that share it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._page = mmap.mmap(descriptor, _PLACES * _NUMBER.size)
        self._writing = threading.Lock()

    @classmethod
    def made(cls) -> Marks:
        """A page of its own, for a process to inherit; the system frees it with the last that holds it."""
        descriptor = os.memfd_create("jina-asgi-marks", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _PLACES * _NUMBER.size)
        return cls(descriptor)

    def begin(self, number: int) -> None:
        """The work of this request begins now; from any thread."""
        with self._writing:
            if not self.begun(number):  # else a later one began before it: that mark stands for both
                _NUMBER.pack_into(self._page, number % _PLACES * _NUMBER.size, number)

    def begun(self, number: int) -> bool:
        """Whether the work of this request was begun. A later request in its place says that it was."""
        last: int = _NUMBER.unpack_from(self._page, number % _PLACES * _NUMBER.size)[0]
        return last >= number

    def close(self) -> None:
        """Let go of the page; again does nothing."""
        if not self._page.closed:
            self._page.close()
            os.close(self.descriptor)
