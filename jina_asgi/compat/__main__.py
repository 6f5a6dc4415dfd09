"""`python -m jina_asgi.compat script.py ...`: restarts Python on the script, with this library's `jina` on its path.

The script runs in an ordinary process: with its own `__main__`, arguments and folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from jina_asgi.compat import install

_MODULE = "jina_asgi.compat"
_USAGE = f"""usage: python -m {_MODULE} script.py [arguments]
       python -m {_MODULE} -m module [arguments]

Runs a program written for Jina: its `import jina` finds this library, also in the processes that it starts."""


def main() -> None:
    """Replaces this process by the program that the arguments name."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE, file=sys.stdout if arguments else sys.stderr)
        raise SystemExit(0 if arguments else 2)
    if sys.flags.ignore_environment:
        raise SystemExit(f"python -m {_MODULE}: leave out -E and -I, with which Python ignores PYTHONPATH")
    install()
    command = [sys.executable, *interpreter_options(sys.orig_argv[1:], len(arguments)), *arguments]
    if (
        sys.platform == "win32"
    ):  # on Windows `exec` ends this process at once, and the caller would not wait for the program
        raise SystemExit(subprocess.call(command))  # noqa: S603  # as below
    os.execv(sys.executable, command)  # noqa: S606  # the program that the user named


def interpreter_options(words: Sequence[str], arguments: int) -> list[str]:
    """Python's own options before `-m jina_asgi.compat` in a command line."""
    *before, last = words[: len(words) - arguments]
    if last == _MODULE:
        last = before.pop()
    flags = last.removesuffix(_MODULE).removesuffix("m")  # "-m", or several options in one: "-um"
    return before if flags == "-" else [*before, flags]


if __name__ == "__main__":
    main()
