"""Run by its path, with the standard library alone: waits for a process to end, and removes a folder then.

If that process goes on, as a server does that replaces its last worker, the folder stays.
"""

from __future__ import annotations

import os
import select
import shutil
import sys

_SECONDS = 10.0


def main(pid: int, folder: str) -> None:
    """Wait for the end of `pid`, `_SECONDS` at most."""
    try:
        ended = select.poll()
        ended.register(os.pidfd_open(pid), select.POLLIN)
        if not ended.poll(_SECONDS * 1000):
            return
    except ProcessLookupError:
        pass
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
