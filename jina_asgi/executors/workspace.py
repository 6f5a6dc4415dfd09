"""The folder below which an Executor may keep files, and a word where what was kept before lies in another."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from jina_asgi.settings.jina_mode import as_jina

logger = logging.getLogger("jina_asgi")

_looked = set[Path]()


def workspace_of(base: str | None, name: str, shard: int | None) -> Path:
    """The folder of an Executor, made where it is not there: `<base>/<name>[/<shard>]`.

    Where no `base` is given it is the cache of this user: `~/.cache/jina` in a program written for Jina, which has its
    files there. Where this folder is empty and the one that the other kind of program would use is not, the log says so.
    """
    own, theirs = Path(base or _own_cache(), name), Path(base or "~/.cache/jina", name).expanduser()
    of_shard = "" if shard in (None, -1) else str(shard)
    if as_jina():  # where Executors that have no shards are those of shard 0
        chosen, others = theirs / of_shard, [own / of_shard, *([own] if of_shard == "0" else [])]
    else:
        chosen, others = own / of_shard, [theirs / (of_shard or "0"), *([] if of_shard else [theirs])]
    if chosen not in _looked:
        _looked.add(chosen)
        found = None if _holds(chosen) else next(filter(_holds, others), None)
        if found is not None:
            logger.warning("%s: its workspace is %s, which is empty; there are files in %s", name, chosen, found)
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


def _own_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "jina-asgi")


def _holds(folder: Path) -> bool:
    """Whether something is in a folder, other than those of shards."""
    try:
        return any(not entry.name.isdigit() for entry in folder.iterdir())
    except OSError:  # it is not there, or not to be read
        return False
