"""Which server instance a process belongs to, and the folder where the processes of one find each other.

The folder is for this user alone, which is checked and not assumed: whoever could write there would be obeyed.
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

__all__ = ["Instance", "alive", "folder", "instance", "keeper", "keeps", "remove", "sockets", "started", "sweep"]

logger = logging.getLogger("jina_asgi")

_LONGEST_PATH = 100  # bytes of a socket's path: macOS takes 103, Linux 107
_LONGEST_NAME = 16  # of those, for the socket's name in its folder
_KEEPER = "pid"  # the file, in an instance's folder, that says which process keeps its pool; blank where there is none
_KEEPER_SIZE = 40  # bytes
_SWEPT = re.compile(r"v\d+-(\d+)-(\d+)-(\d+)")  # what `_name` makes of an instance that is a process


@dataclass(frozen=True, slots=True)
class Instance:
    """One server with all its workers: equal in each of them, equal to no other's.

    `pid` and `started` are of the process whose life is the instance's; both None for one that was named. `started`
    alone is None where the system does not tell.
    """

    key: str
    pid: int | None = None
    started: int | None = None


def instance(*, named: bool = True) -> Instance:
    """The server instance that this process belongs to.

    In this order: with `named`, the one that `JINA_ASGI_POOL` names; gunicorn's arbiter; the process that started this one by
    multiprocessing (uvicorn, hypercorn and granian with several workers); this process.
    """
    name = os.environ.get("JINA_ASGI_POOL")
    if named and name:
        return Instance(f"pool-{name}")
    parent = multiprocessing.parent_process()
    pid = _arbiter() or (parent.pid if parent is not None else None) or os.getpid()
    start = started(pid)
    return Instance(f"{pid}-{start or 0}-{_namespace()}", pid, start)


def started(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None: it is gone, or the system does not tell."""
    found = _stat(pid)
    return None if found is None else int(found[19])


def alive(pid: int, start: int | None) -> bool:
    """Whether the process that had `pid` when it was looked up still runs: not a later one, and not a zombie."""
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
    """The folder of an instance, made if need be: `<base>/jina-asgi-<uid>/<name made of key>/`.

    The base is the first of XDG_RUNTIME_DIR, TMPDIR, /tmp and /dev/shm where nobody else can rename what is ours, that
    can be written to and is not full, and where a socket's path stays under 100 bytes; or the first such of `bases`.

    Raises:
        NotReady: no base will do; the message says what is wrong with each.
        DefinitionError: the folder is there, but not as a folder that only this user can enter.
    """
    uid, wrong = os.geteuid(), []
    places = [(base, base / f"jina-asgi-{uid}" / _name(key)) for base in (_bases() if bases is None else bases)]
    for base, made in places:  # where it is already: another base may have room again
        if _has_room(made) and _objection(base, made) is None:
            _trusted(made, uid)
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


def keeper(folder: Path) -> tuple[int, int] | None:
    """The process that keeps an instance's pool, by pid and start (0: not known), as `keeps` noted it; None: there is none."""
    try:
        pid, start = map(int, (folder / _KEEPER).read_text().split())
    except (OSError, ValueError):
        return None
    return pid, start


def keeps(folder: Path, pid: int) -> None:
    """Note the process that keeps an instance's pool. The file has its length already, so this needs no room."""
    _write_keeper(folder, f"{pid} {started(pid) or 0}")


def sockets() -> Iterator[Path]:
    """The sockets of this user's pool hosts, wherever they are; of some the host may have ended."""
    for base in _bases():
        mine = base / f"jina-asgi-{os.geteuid()}"
        try:
            _check(mine, os.geteuid())
        except (OSError, DefinitionError) as error:
            logger.debug("no pool is looked for in %s: %s", mine, error)
            continue
        yield from sorted(mine.glob("*/socket"))


def remove(key: str) -> None:
    """Remove the folder of an instance that has ended. Its parent stays: others may be about to use it."""
    for base in _bases():
        made = base / f"jina-asgi-{os.geteuid()}" / _name(key)
        try:
            _trusted(made, os.geteuid())
        except (OSError, DefinitionError) as error:
            logger.debug("nothing is removed in %s: %s", base, error)
            continue
        shutil.rmtree(made, ignore_errors=True)


def sweep() -> None:
    """Remove the folders of instances that ended without doing so: their processes are gone, or other ones by now."""
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
    """The pid of gunicorn's arbiter, where this process is one or was forked by one.

    A worker runs inside the call that forked it, so the arbiter is on its main thread's stack, whichever worker class
    it is and however long its parent has been gone. `getppid` could not tell an arbiter from a worker.
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
    """What Linux tells of a process, from its state on (field 3); None: no such process, or not Linux."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None


def _namespace() -> int:
    """The namespace that pids count in: containers may share a temporary folder."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _name(key: str) -> str:
    """A short name for a key; other versions of the protocol have other folders."""
    short = key if re.fullmatch(r"[\w-]{1,32}", key, re.ASCII) else hashlib.sha256(key.encode()).hexdigest()[:32]
    return f"v{VERSIONS[1]}-{short}"


def _bases() -> Iterator[Path]:
    """Not `tempfile.gettempdir()`: where nothing else is left that is the current folder, which may differ by process."""
    given = [os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"), "/tmp", "/dev/shm"]  # noqa: S108
    yield from dict.fromkeys(Path(path) for path in given if path)


def _objection(base: Path, made: Path) -> str | None:
    """Why a base will not do; None: it may."""
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
    """Make the folder of an instance, and see that there is room to write to it.

    Raises:
        OSError: it cannot be made, or written to. DefinitionError: it cannot be trusted.
    """
    for path in (made.parent, made):
        with suppress(FileExistsError):  # where it is no folder, `_check` says so
            path.mkdir(0o700)
        _check(path, uid)
    if not os.access(made, os.W_OK):
        raise PermissionError(errno.EACCES, "it cannot be written")
    try:
        _write_keeper(made, "")
    except OSError:
        (made / _KEEPER).unlink(missing_ok=True)
        with suppress(OSError):  # others may have used it when there was room
            made.rmdir()
        raise


def _write_keeper(folder: Path, text: str) -> None:
    descriptor = os.open(folder / _KEEPER, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if not text and os.fstat(descriptor).st_size >= _KEEPER_SIZE:  # another process of this instance was quicker
            return
        if os.pwrite(descriptor, text.encode().ljust(_KEEPER_SIZE), 0) < _KEEPER_SIZE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)


def _has_room(made: Path) -> bool:
    """Whether an instance has its folder there, which could be written to when it was made."""
    try:
        return (made / _KEEPER).lstat().st_size >= _KEEPER_SIZE
    except OSError:
        return False


def _trusted(made: Path, uid: int) -> None:
    """Return where a folder and the one above it are this user's alone.

    Raises:
        DefinitionError: they are not. OSError: they are not there.
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
