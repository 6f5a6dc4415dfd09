"""Identifies the server instance of a process, and the folder where the processes of an instance meet.

The folder belongs to this user alone, which is verified: anyone who could write to it could run code here.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import multiprocessing
import os
import re
import shutil
import stat
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jina_asgi.errors import DefinitionError, NotReady
from jina_asgi.protocols.frames._heads import VERSIONS

__all__ = [
    "Instance",
    "alive",
    "folder",
    "has_pool_host",
    "instance",
    "pool_host_of",
    "record_pool_host",
    "remove",
    "remove_without_pool",
    "sockets",
    "started",
    "sweep",
]

logger = logging.getLogger("jina_asgi")

_LONGEST_PATH = 100  # bytes of a socket's path: macOS takes 103, Linux 107
_LONGEST_NAME = 16  # bytes of it that are reserved for the socket's name
_KEEPER = "pid"  # the file in an instance's folder with the pid of its pool host; blank if there is none
_KEEPER_SIZE = 40  # bytes
_SWEPT = re.compile(r"v\d+-(\d+)-(\d+)-(\d+)")  # the names that `_name` makes for instances that are processes


@dataclass(frozen=True, slots=True)
class Instance:
    """One server with all its workers: equal in each of them, and different from every other server.

    `pid` and `started` are of the process that the instance lives as long as; both are None for a named instance.
    `started` alone is None where the system does not report it.
    """

    key: str
    pid: int | None = None
    started: int | None = None


def instance(*, named: bool = True) -> Instance:
    """Finds the server instance that this process belongs to.

    In this order: with `named`, the one that `JINA_ASGI_POOL` names; gunicorn's arbiter; the process that started this
    one by multiprocessing (uvicorn, hypercorn and granian with several workers); this process.
    """
    name = os.environ.get("JINA_ASGI_POOL")
    if named and name:
        return Instance(f"pool-{name}")
    parent = multiprocessing.parent_process()
    pid = _arbiter() or (parent.pid if parent is not None else None) or os.getpid()
    start = started(pid)
    return Instance(f"{pid}-{start or 0}-{_namespace()}", pid, start)


def started(pid: int) -> int | None:
    """The start time of a process, in clock ticks since boot; None if it has ended, or the system does not report it."""
    found = _stat(pid)
    return None if found is None else int(found[19])


def alive(pid: int, start: int | None) -> bool:
    """Whether the process with this pid and start time still runs, and is not a zombie."""
    if start is not None:
        found = _stat(pid)
        return found is not None and int(found[19]) == start and found[0] not in ("Z", "X")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def folder(key: str, bases: Iterable[Path] | None = None) -> Path:
    """Returns the folder of an instance, and creates it if needed: `<base>/jina-asgi-<uid>/<name made of key>/`.

    The base is the first of XDG_RUNTIME_DIR, TMPDIR, /tmp and /dev/shm where no other user can rename this user's
    files, that is writable and not full, and where a socket's path stays under 100 bytes; or the first such of `bases`.

    Raises:
        NotReady: no base is usable; the message says what is wrong with each.
        DefinitionError: the folder exists, but is not a folder that only this user can enter.
    """
    uid, wrong = os.geteuid(), []
    places = [(base, base / f"jina-asgi-{uid}" / _name(key)) for base in (_bases() if bases is None else bases)]
    for base, made in places:  # a base that has it already comes first: another base may have room again
        if _has_room(made) and _objection(base, made) is None:
            _check_trusted(made, uid)
            return made
    for base, made in places:
        objection = _objection(base, made)
        if objection is None:
            try:
                _make(made, uid)
            except OSError as error:
                objection = str(error.strerror)
            else:
                return made
        wrong.append(f"{base} ({objection})")
    raise NotReady(
        f"there is no folder for sockets: {', '.join(wrong)}; set XDG_RUNTIME_DIR or TMPDIR to a folder of this user"
    )


def pool_host_of(folder: Path) -> tuple[int, int] | None:
    """The pid and start time (0: unknown) of an instance's pool host, as `record_pool_host` recorded them; None if there is none."""
    try:
        pid, start = map(int, (folder / _KEEPER).read_text().split())
    except (OSError, ValueError):
        return None
    return pid, start


def has_pool_host(folder: Path) -> bool:
    """Whether the pool host of an instance lives."""
    host = pool_host_of(folder)
    return host is not None and alive(host[0], host[1] or None)


def record_pool_host(folder: Path, pid: int) -> None:
    """Records an instance's pool host. The file has its full length already, so that this needs no disk space."""
    _write_keeper(folder, f"{pid} {started(pid) or 0}")


def sockets() -> Iterator[Path]:
    """The sockets of this user's pool hosts in all folders; some of the hosts may have ended."""
    for base in _bases():
        mine = base / f"jina-asgi-{os.geteuid()}"
        try:
            _check(mine, os.geteuid())
        except (OSError, DefinitionError) as error:
            logger.debug("no pool is looked for in %s: %s", mine, error)
            continue
        yield from sorted(mine.glob("*/socket"))


def remove(key: str) -> None:
    """Removes the folder of an instance that has ended. Its parent stays: other instances may be about to use it."""
    for base in _bases():
        made = base / f"jina-asgi-{os.geteuid()}" / _name(key)
        try:
            _check_trusted(made, os.geteuid())
        except (OSError, DefinitionError) as error:
            logger.debug("nothing is removed in %s: %s", base, error)
            continue
        shutil.rmtree(made, ignore_errors=True)


def remove_without_pool(key: str) -> None:
    """As `remove`, unless a pool host lives there, which removes the folder when it ends."""
    if not has_pool_host(folder(key)):
        remove(key)


def sweep() -> None:
    """Removes the folders of instances whose process has ended without removing them."""
    here = _namespace()
    for base in _bases():
        mine = base / f"jina-asgi-{os.geteuid()}"
        try:
            _check(mine, os.geteuid())
            names = os.listdir(mine)
        except (OSError, DefinitionError) as error:
            logger.debug("nothing is swept in %s: %s", mine, error)
            continue
        for name in names:
            found = _SWEPT.fullmatch(name)
            if found is not None and int(found[3]) == here and not alive(int(found[1]), int(found[2]) or None):
                shutil.rmtree(mine / name, ignore_errors=True)


def _arbiter() -> int | None:
    """Finds the pid of gunicorn's arbiter, if this process is one or was forked by one.

    A worker runs inside the call that forked it, so the arbiter is on its main thread's stack, for every worker class
    and even after the arbiter has ended. `getppid` does not distinguish an arbiter from a worker.
    """
    module = sys.modules.get("gunicorn.arbiter")
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while module is not None and frame is not None:
        if frame.f_globals is vars(module):
            pid = getattr(frame.f_locals.get("self"), "pid", None)
            if isinstance(pid, int):
                return pid
        frame = frame.f_back
    return None


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the state on (field 3); None if there is no such process, or not on Linux."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None


def _namespace() -> int:
    """The pid namespace: containers may share a temporary folder."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _name(key: str) -> str:
    """A short folder name for a key; other versions of the protocol have other folders."""
    short = key if re.fullmatch(r"[\w-]{1,32}", key, re.ASCII) else hashlib.sha256(key.encode()).hexdigest()[:32]
    return f"v{VERSIONS[1]}-{short}"


def _bases() -> Iterator[Path]:
    """The base folders to try. Not `tempfile.gettempdir()`, which falls back to the current folder of each process."""
    given = [os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"), "/tmp", "/dev/shm"]  # noqa: S108
    yield from dict.fromkeys(Path(path) for path in given if path)


def _objection(base: Path, made: Path) -> str | None:
    """Why a base cannot be used; None if it can."""
    if not base.is_absolute():
        return "not an absolute path"
    length = len(os.fsencode(made)) + 1 + _LONGEST_NAME
    if length >= _LONGEST_PATH:
        return f"the path of a socket there has {length} bytes, and less than {_LONGEST_PATH} are allowed"
    try:
        found = base.stat()
    except OSError as error:
        return str(error.strerror)
    if not stat.S_ISDIR(found.st_mode):
        return "not a folder"
    if found.st_uid not in (0, os.geteuid()):
        return f"it is user {found.st_uid}'s"
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        return "others can write there, and it has no sticky bit"
    return None


def _make(made: Path, uid: int) -> None:
    """Creates the folder of an instance, and checks that there is room to write to it.

    Raises:
        OSError: it cannot be created, or written to. DefinitionError: it cannot be trusted.
    """
    for path in (made.parent, made):
        with suppress(FileExistsError):  # if it is not a folder, `_check` raises
            path.mkdir(0o700)
        _check(path, uid)
    if not os.access(made, os.W_OK):
        raise PermissionError(errno.EACCES, "it cannot be written")
    try:
        _write_keeper(made, "")
    except OSError:
        (made / _KEEPER).unlink(missing_ok=True)
        with suppress(OSError):  # other processes may have used it when there was room
            made.rmdir()
        raise


def _write_keeper(folder: Path, text: str) -> None:
    descriptor = os.open(folder / _KEEPER, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if not text and os.fstat(descriptor).st_size >= _KEEPER_SIZE:  # another process of this instance was faster
            return
        if os.pwrite(descriptor, text.encode().ljust(_KEEPER_SIZE), 0) < _KEEPER_SIZE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)


def _has_room(made: Path) -> bool:
    """Whether an instance has a folder in this base that could be written to when it was created."""
    try:
        return (made / _KEEPER).lstat().st_size >= _KEEPER_SIZE
    except OSError:
        return False


def _check_trusted(made: Path, uid: int) -> None:
    """Checks that a folder and its parent belong to this user alone.

    Raises:
        DefinitionError: they do not. OSError: they do not exist.
    """
    for path in (made.parent, made):
        _check(path, uid)


def _check(path: Path, uid: int) -> None:
    found = path.lstat()
    mode = stat.S_IMODE(found.st_mode) & 0o777
    if stat.S_ISLNK(found.st_mode):
        wrong = "it is a link"
    elif not stat.S_ISDIR(found.st_mode):
        wrong = "it is no folder"
    elif found.st_uid != uid:
        wrong = f"it is user {found.st_uid}'s, not {uid}'s"
    elif mode != 0o700:
        wrong = f"its mode is {mode:04o}, not 0700"
    else:
        return
    raise DefinitionError(f"{path} cannot be trusted: {wrong}; remove it, or set XDG_RUNTIME_DIR to a folder of yours")
