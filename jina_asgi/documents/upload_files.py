"""Temporary files of uploads: a folder for each upload, in a folder of this process, in the system's temporary folder.

The folder of a process is locked while the process runs; the next process that starts removes the folders of killed ones.
The folder of an upload is locked by an Executor that reads its files, as a batch may use a caller's files after the caller
has left. Only this user can read the files, and their names are random.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

try:
    import fcntl
except ImportError:  # Windows: without locks, the files of a killed process stay
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("jina_asgi")

PREFIX = "jina-asgi-uploads-"
#: Folders that one batch locks at most: each takes a descriptor while it runs.
_MOST_LOCKED = 256
#: The mode of an upload's folder that was still in use when its call ended, and can be removed after that.
_LEFT = 0o1700


@dataclass(frozen=True, slots=True)
class _UploadFolder:
    """The folder of one process, and the descriptor that locks it (-1: not locked)."""

    path: str
    pid: int
    descriptor: int


class _ProcessFolder:
    """The folder of this process, made when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folder: _UploadFolder | None = None
        self._left_folders: set[str] = set()
        self._registered = False

    def new(self) -> str:
        """A new folder for one upload.

        Raises:
            OSError: there is no room, or no folder for temporary files.
        """
        with self._lock:
            if self._folder is None or self._folder.pid != os.getpid():
                self._folder = self._made()
            try:
                return tempfile.mkdtemp(prefix="", dir=self._folder.path)
            except FileNotFoundError:  # another program cleaned the temporary folder
                self._close()
                self._folder = self._made()
                return tempfile.mkdtemp(prefix="", dir=self._folder.path)

    def mark_left(self, folder: str) -> None:
        """Record a folder that is in use though its call was abandoned: its last user removes it, or `end` does."""
        with self._lock:
            self._left_folders.add(folder)

    def retry(self) -> None:
        """Remove the recorded folders whose users have ended."""
        with self._lock:
            folders, self._left_folders = self._left_folders, set()
        for folder in folders:
            abandon(folder)

    def _made(self) -> _UploadFolder:
        sweep()
        if not self._registered:
            self._registered = True
            atexit.register(self.end)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=self._forked)
        while True:
            path = tempfile.mkdtemp(prefix=PREFIX)
            try:
                descriptor = _locked(path, exclusive=True)
            except OSError:
                descriptor = -1 if os.path.isdir(path) else None  # without locks nothing is swept
            if descriptor is not None and os.path.isdir(path):  # else another process has swept it
                return _UploadFolder(path, os.getpid(), descriptor)

    def _close(self) -> None:
        if self._folder is not None and self._folder.descriptor >= 0:
            os.close(self._folder.descriptor)
        self._folder = None

    def _forked(self) -> None:
        """After a fork, the child gets a folder of its own, and no lock on its parent's."""
        self._lock = threading.Lock()
        self._left_folders = set()
        self._close()

    def end(self) -> None:
        """Remove this process's folder at its end, except for files that an Executor elsewhere still uses."""
        if self._folder is not None and self._folder.pid == os.getpid():
            path = self._folder.path
            self._close()
            _emptied(path)


_process_folder = _ProcessFolder()


def new_folder() -> str:
    """A new folder for the files of one upload.

    Raises:
        OSError: there is no room, or no folder for temporary files.
    """
    return _process_folder.new()


def remove(folder: str) -> None:
    """Remove the folder of an upload whose call has ended, and folders that could not be removed before."""
    shutil.rmtree(folder, ignore_errors=True)
    _process_folder.retry()


def abandon(folder: str) -> None:
    """Remove the folder of an upload whose call was abandoned; if an Executor still uses it, the Executor removes it."""
    with suppress(FileNotFoundError):
        os.chmod(folder, _LEFT)  # before the attempt, so that the process that unlocks it later sees this
        if not _removed_if_free(folder):
            _process_folder.mark_left(folder)


def sweep() -> None:
    """Remove the folders of processes that were killed."""
    if fcntl is None:
        return
    try:
        with os.scandir(tempfile.gettempdir()) as entries:
            folders = [entry.path for entry in entries if entry.name.startswith(PREFIX) and _is_ours(entry)]
    except OSError as error:
        logger.warning("the folder of temporary files cannot be listed: %s", error)
        return
    for folder in folders:
        with suppress(OSError):  # another process has just removed it
            descriptor = _locked(folder, exclusive=True)
            if descriptor is not None:
                logger.info("removed the uploaded files of an ended process in %s", folder)
                _emptied(folder)
                os.close(descriptor)


def forget() -> None:
    """Remove this process's folder; the next upload makes a new one, in the temporary folder of that time."""
    _process_folder.end()


def is_upload(path: Path) -> bool:
    """Whether a path has the name of an upload's file."""
    parts = path.parts
    return len(parts) > 3 and parts[-3].startswith(PREFIX)


def _checked(path: Path) -> Path:
    """Checks that a path is an upload's file: in folders of this user only, with a random name.

    Raises:
        ValueError: it is not.
    """
    if ".." not in path.parts and is_upload(path):
        with suppress(OSError):
            modes = [os.lstat(each).st_mode for each in (path.parents[1], path.parent, path)]
            owned = hasattr(os, "geteuid") and os.lstat(path.parents[1]).st_uid == os.geteuid()
            if [stat.S_IFMT(mode) for mode in modes] == [stat.S_IFDIR, stat.S_IFDIR, stat.S_IFREG]:
                if fcntl is None or (owned and not modes[0] & 0o077):
                    return path
    raise ValueError("expected a file, in a form or as the body alone: a text does not name one")


#: The path of a file that came in a form, or as a body; in a document's field it takes nothing else.
UploadedPath = Annotated[Path, AfterValidator(_checked)]


@contextmanager
def in_use(docs: Iterable[Any]) -> Iterator[None]:
    """Keep the uploaded files in the documents' own fields while an Executor uses the documents."""
    held: dict[str, int] = {}
    try:
        for path in _paths(docs):
            folder = str(path.parent)
            if folder not in held and len(held) < _MOST_LOCKED and is_upload(path):
                with suppress(OSError):  # its caller had left before; or no descriptor is free
                    descriptor = _locked(folder, exclusive=False)
                    if descriptor is not None:
                        held[folder] = descriptor
        yield
    finally:
        for folder, descriptor in held.items():
            _release(folder, descriptor)


def _paths(docs: Iterable[Any]) -> Iterator[Path]:
    for doc in docs:
        for value in vars(doc).values():
            if isinstance(value, Path):
                yield value
            elif isinstance(value, list | tuple | set | frozenset):
                yield from (item for item in value if isinstance(item, Path))


def _release(folder: str, descriptor: int) -> None:
    """Unlock a folder; remove it if its call was abandoned meanwhile."""
    if descriptor < 0:
        return
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    left = stat.S_IMODE(os.fstat(descriptor).st_mode) == _LEFT  # after unlocking: one of both sides removes it
    os.close(descriptor)
    if left:
        _removed_if_free(folder)


def _removed_if_free(folder: str) -> bool:
    """Remove a folder unless it is locked; return whether it is gone."""
    try:
        descriptor = _locked(folder, exclusive=True)
    except FileNotFoundError:
        return True
    except OSError:
        descriptor = -1  # without locks no process can show that it uses the folder
    if descriptor is None:
        return False
    shutil.rmtree(folder, ignore_errors=True)
    if descriptor >= 0:
        os.close(descriptor)
    return True


def _locked(folder: str, *, exclusive: bool) -> int | None:
    """Lock a folder, and return the descriptor; None: another process has the lock; -1: there are no locks here.

    Raises:
        OSError: the folder is gone, there is no descriptor left, or its file system has no locks.
    """
    if fcntl is None:
        return -1
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor


def _emptied(path: str) -> None:
    """Remove the folder of a process, except for uploads that are in use."""
    with suppress(OSError):
        for name in os.listdir(path):
            upload = os.path.join(path, name)
            with suppress(FileNotFoundError):
                os.chmod(upload, _LEFT)
                _removed_if_free(upload)
        os.rmdir(path)


def _is_ours(entry: os.DirEntry[str]) -> bool:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
