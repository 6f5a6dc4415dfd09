"""Runs a module among folders of another kind: `python -m tests.doubles.read_only gunicorn ...`. Needs root.

Only /dev/shm can be written to; or, where FULL names a folder, everything but that one, which is full.
"""

from __future__ import annotations

import os
import subprocess
import sys

READ_ONLY = "mount -o remount,bind,ro /"
FULL = 'mount -t tmpfs -o size=8k tmpfs "$FULL" && head -c 8192 /dev/zero > "$FULL/filled"'
SCRIPT = f'mount --make-rprivate / && if [ -n "$FULL" ]; then {FULL}; else {READ_ONLY}; fi && exec "$0" -m "$@"'

#: What it is started with; without it mounts are not ours to change.
UNSHARE = ["unshare", "--mount"]


def possible() -> bool:
    """Whether this user may."""
    try:
        return subprocess.run([*UNSHARE, "mount", "--make-rprivate", "/"], check=False).returncode == 0
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    os.execvp(UNSHARE[0], [*UNSHARE, "sh", "-c", SCRIPT, sys.executable, *sys.argv[1:]])
