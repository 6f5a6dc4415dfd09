"""Runs a module where only /dev/shm can be written: `python -m tests.processes.read_only gunicorn ...`. Needs root."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = 'mount --make-rprivate / && mount -o remount,bind,ro / && exec "$0" -m "$@"'

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
