"""Records which requests a process has begun, in a page of memory that outlives the process.

A request's number is written when its work begins. The page is still readable after the process was killed, so that
requests that had not begun can safely be retried elsewhere.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading

_PLACES = 512
_NUMBER = struct.Struct("<Q")


class StartedRequests:
    """The page, shared by descriptor. Each slot holds the highest begun number of the requests that share it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._page = mmap.mmap(descriptor, _PLACES * _NUMBER.size)
        self._writing = threading.Lock()

    @classmethod
    def made(cls) -> StartedRequests:
        """Creates a page for a child process to inherit; the system frees it with the last process that holds it."""
        descriptor = os.memfd_create("jina-asgi-marks", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _PLACES * _NUMBER.size)
        return cls(descriptor)

    def begin(self, number: int) -> None:
        """Records that the work of this request begins now; callable from any thread."""
        with self._writing:
            if not self.begun(number):  # else a later request in the same slot began first: its number stands for both
                _NUMBER.pack_into(self._page, number % _PLACES * _NUMBER.size, number)

    def begun(self, number: int) -> bool:
        """Whether the work of this request has begun. A later request in the same slot counts as proof."""
        last: int = _NUMBER.unpack_from(self._page, number % _PLACES * _NUMBER.size)[0]
        return last >= number

    def close(self) -> None:
        """Closes the page; calling it again does nothing."""
        if not self._page.closed:
            self._page.close()
            os.close(self.descriptor)
