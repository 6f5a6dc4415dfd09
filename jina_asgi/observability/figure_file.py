"""The file in which a process writes its figures, and the folder where those of all processes of a server are added up.

A process holds a lock on its file as long as it lives, however it ends. A reader adds the counts of a file without a
lock to the file `ended`, and removes it: so counts never fall, and files do not pile up. Gauges count while their process
lives. Each file is a sequence of blocks, each with its figures' names as JSON and their numbers.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from jina_asgi.concurrency.file_lock import lock_within
from jina_asgi.observability.figures import Figure, Figures, Histogram, Key
from jina_asgi.observability.metrics import BY_NAME

logger = logging.getLogger("jina_asgi")

_HEAD = struct.Struct("<II")  # bytes of the names, count of the numbers
_PATIENCE = 5.0  # seconds to wait for another process that reads
_ENDED, _LOCK = "ended", "lock"

#: The sums of a server: the numbers of each figure.
Sums = dict[Key, list[float]]


class FigureFile:
    """The file of this process: `write` stores what has changed since the last time.

    Raises:
        OSError: it cannot be created. NotReady: the folder is locked for too long.
    """

    def __init__(self, folder: Path, figures: Figures) -> None:
        self._figures = figures
        self._blocks: list[_Block] = []
        self._written = self._end = 0  # figures in blocks, and bytes
        folder.mkdir(mode=0o700, exist_ok=True)
        self.path = folder / f"{os.getpid()}-{time.time_ns()}"
        with _locked(folder):  # else a reader could take it for that of a process that has ended
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self) -> None:
        """Store the figures; only one thread at a time may call this.

        Raises:
            OSError: the disk is full; the next call tries again.
        """
        for block in self._blocks:
            block.write(self._descriptor)
        if new := self._figures.since(self._written):
            block = _Block(self._end, new)
            self._end = block.append(self._descriptor)
            self._blocks.append(block)
            self._written += len(new)

    def release(self) -> None:
        """Give the lock up: from now on this counts as the file of a process that has ended."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def retake(self) -> bool:
        """Take the lock again; False if the file was removed meanwhile."""
        try:
            with _locked(self.path.parent):
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        return os.fstat(self._descriptor).st_nlink > 0

    def close(self) -> None:
        """Give the lock up for good; in a forked child the parent keeps it."""
        os.close(self._descriptor)


class _Block:
    """Figures that were first written together."""

    def __init__(self, start: int, figures: list[tuple[Key, Figure | Histogram]]) -> None:
        self._start, self._figures = start, [figure for _, figure in figures]
        self._names = msgspec.json.encode([(name, labels, len(found.numbers)) for (name, labels), found in figures])
        self._names += b" " * (-len(self._names) % 8)  # numbers at multiples of 8 are never torn
        self._numbers = struct.Struct(f"<{sum(len(found.numbers) for found in self._figures)}d")
        self._last = b""

    def append(self, descriptor: int) -> int:
        """Write the whole block, its head last: without a head there is no block. Returns where it ends."""
        count = self._numbers.size // 8
        self.write(descriptor)
        os.pwrite(descriptor, self._names, self._start + _HEAD.size)
        os.pwrite(descriptor, _HEAD.pack(len(self._names), count), self._start)
        return self._start + _HEAD.size + len(self._names) + self._numbers.size

    def write(self, descriptor: int) -> None:
        numbers: list[float] = []
        for figure in self._figures:
            numbers += figure.numbers
        packed = self._numbers.pack(*numbers)
        if packed != self._last:
            os.pwrite(descriptor, packed, self._start + _HEAD.size + len(self._names))
            self._last = packed


class _Ended(msgspec.Struct):
    """The content of `ended`: the sums of processes that have ended, and the names of their files.

    A file that is still there has been added already: its reader was killed before it could remove it.
    """

    files: list[str] = []
    figures: list[tuple[str, tuple[str, ...], list[float]]] = []


def sums(folder: Path) -> Sums:
    """The figures of all processes of a server. Blocks for a moment.

    Raises:
        NotReady: the folder is locked for too long. OSError: it is gone, or the disk is full.
    """
    with _locked(folder):
        found = _fold(folder)
        total: Sums = {(name, labels): numbers for name, labels, numbers in found.figures}
        for path in _files(folder):
            _add(total, _parsed(path.read_bytes()))
        return total


def remove_if_last(folder: Path, *, only_look: bool = False) -> bool:
    """Remove the folder if no process that writes figures lives, or only look; whether none lives.

    Raises:
        NotReady, OSError: as `sums`.
    """
    with _locked(folder):
        if any(_is_alive(path) for path in _files(folder)):
            return False
        if not only_look:
            shutil.rmtree(folder, ignore_errors=True)
        return True


def _fold(folder: Path) -> _Ended:
    """Add the files of processes that have ended to `ended`; called with the lock held."""
    ended = _read_ended(folder)
    for name in ended.files:
        (folder / name).unlink(missing_ok=True)
    dead = [path for path in _files(folder) if not _is_alive(path)]
    if not dead:
        return ended
    total: Sums = {(name, labels): numbers for name, labels, numbers in ended.figures}
    for path in dead:
        counts = {key: numbers for key, numbers in _parsed(path.read_bytes()).items() if _counts(key)}
        _add(total, counts)
    ended = _Ended([path.name for path in dead], [(name, labels, numbers) for (name, labels), numbers in total.items()])
    written = folder / f"{_ENDED}.new"
    written.write_bytes(msgspec.json.encode(ended))
    written.replace(folder / _ENDED)
    for path in dead:
        path.unlink(missing_ok=True)
    return ended


def _read_ended(folder: Path) -> _Ended:
    try:
        return msgspec.json.decode((folder / _ENDED).read_bytes(), type=_Ended)
    except FileNotFoundError:
        return _Ended()


def _counts(key: Key) -> bool:
    metric = BY_NAME.get(key[0])
    return metric is None or metric.kind != "gauge"


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name[0].isdigit()]


def _is_alive(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _parsed(raw: bytes) -> Mapping[Key, list[float]]:
    found: Sums = {}
    start = 0
    while start + _HEAD.size <= len(raw):
        length, count = _HEAD.unpack_from(raw, start)
        names, start = start + _HEAD.size, start + _HEAD.size + length + 8 * count
        if not length or start > len(raw):
            break  # its process was killed before it was complete
        numbers = iter(struct.unpack_from(f"<{count}d", raw, names + length))
        for name, labels, many in msgspec.json.decode(
            raw[names : names + length], type=list[tuple[str, tuple[str, ...], int]]
        ):
            found[name, labels] = [next(numbers) for _ in range(many)]
    return found


def _add(total: Sums, more: Mapping[Key, list[float]]) -> None:
    for key, numbers in more.items():
        had = total.get(key)
        if had is None or len(had) != len(numbers):  # of another version of this library, with other buckets
            total[key] = numbers
        elif (metric := BY_NAME.get(key[0])) is not None and metric.most:
            total[key] = max(had, numbers)
        else:
            total[key] = [one + other for one, other in zip(had, numbers, strict=True)]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The lock of those who read and remove. It is polled for: a process that has stopped may hold it.

    Raises:
        NotReady: another process holds it for too long. OSError: the folder is gone.
    """
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        lock_within(_PATIENCE, descriptor, folder / _LOCK)
        yield
    finally:
        os.close(descriptor)
