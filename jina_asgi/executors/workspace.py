"""The folder of an Executor's files, and a warning if its earlier files are in another folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from jina_asgi.settings.jina_mode import as_jina

logger = logging.getLogger("jina_asgi")

_looked = set[Path]()


def workspace_of(base: str | None, name: str, shard: int | None) -> Path:
    """The folder of an Executor, created if needed: `<base>/<name>[/<shard>]`.

    Without a `base` it is in the user's cache: `~/.cache/jina` in a program written for Jina, which has its files
    there. If this folder is empty, and the one of the other kind of program is not, a warning is logged.
    """
    own, theirs = Path(base or _own_cache(), name), Path(base or "~/.cache/jina", name).expanduser()
    of_shard = "" if shard in (None, -1) else str(shard)
    if as_jina():  # in Jina, Executors without shards use the folder of shard 0
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
    """Whether a folder holds anything besides the folders of shards."""
    try:
        return any(not entry.name.isdigit() for entry in folder.iterdir())
    except OSError:  # it does not exist, or cannot be read
        return False
