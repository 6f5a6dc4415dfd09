"""Writes the figures of this process once a second, in a thread, while it serves, and when it has ended serving."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from jina_asgi.observability.figure_file import FigureFile, Sums, remove_if_last, sums
from jina_asgi.observability.figures import FIGURES
from jina_asgi.observability.switch import SWITCH

logger = logging.getLogger("jina_asgi")

_EVERY = 1.0  # seconds


class FigureWriter:
    """The writer of one process.

    Attributes:
        users: how many things serve; with the last one the process counts as ended.
        before: called before each writing, to set figures that are read rather than counted.
    """

    def __init__(self) -> None:
        self.users = 0
        self.before: list[Callable[[], None]] = []
        self._file: FigureFile | None = None  # None: at rest
        self._left: FigureFile | None = None  # the file of before the rest
        self._lock = threading.RLock()
        self._failed = False
        self._over = threading.Event()

    @property
    def folder(self) -> Path | None:
        """That of the server's figures; None at rest."""
        return None if self._file is None else self._file.path.parent

    def wake(self, folder: Path) -> None:
        """Begin to write, or go on after a rest.

        Raises:
            OSError, NotReady: as `FigureFile`.
        """
        with self._lock:
            if self._file is not None:
                return
            left, self._left = self._left, None
            if left is not None and left.retake():
                self._file = left
            else:
                if left is not None:
                    left.close()
                    FIGURES.reset()  # the file's counts were added to those of ended processes
                self._file = FigureFile(folder, FIGURES)
            SWITCH.folder = str(folder)
            self._over = threading.Event()
            threading.Thread(target=self._run, args=(self._over,), name="jina_asgi figures", daemon=True).start()

    def sums(self) -> Sums:
        """The figures of the whole server, with this process's as of now. Blocks for a moment.

        Raises:
            NotReady, OSError: as `figure_file.sums`.
        """
        self.write()
        folder = self.folder
        return {} if folder is None else sums(folder)

    def write(self) -> None:
        """Write now; a full disk is logged once, and the figures are written when there is room."""
        with self._lock:
            if self._file is None:
                return
            for read in self.before:
                read()
            try:
                self._file.write()
            except OSError as error:
                if not self._failed:
                    logger.warning("the metrics of this process cannot be written: %s", error.strerror)
                self._failed = True
            else:
                self._failed = False

    def rest(self, *, removes: bool) -> bool:
        """Write for the last time, and count as a process that has ended; whether no other is left.

        Args:
            removes: the server ends with this process: the last one removes its folder.

        Raises:
            OSError, NotReady: the folder is gone, or locked for too long.
        """
        with self._lock:
            self.write()
            file, self._file, SWITCH.folder = self._file, None, ""
            self._over.set()
            if file is None:
                return False
            file.release()
            is_last = remove_if_last(file.path.parent, only_look=not removes)
            if is_last and removes:
                file.close()
            else:
                self._left = file
            return is_last

    def forget(self) -> None:
        """Called in a forked child: the file is its parent's."""
        for file in (self._file, self._left):
            if file is not None:
                file.close()

    def _run(self, over: threading.Event) -> None:
        while not over.wait(_EVERY):
            self.write()


#: That of this process.
WRITER = FigureWriter()


def _forked() -> None:
    global WRITER
    SWITCH.folder = ""
    WRITER.forget()
    WRITER = FigureWriter()


os.register_at_fork(after_in_child=_forked)
