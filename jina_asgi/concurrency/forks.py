"""Keeps a child that a user's code forks from coming back into ours.

There it would be a second process on the same connections, the same event loop's files and the same process group.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import NoReturn

from jina_asgi.errors._raised import loggable, raised_from

__all__ = ["end_if_forked"]

logger = logging.getLogger("jina_asgi")


def end_if_forked(process: int, error: BaseException | None = None) -> None:
    """End this process at once where it is not `process`, but a child that the code which has just returned forked.

    No other cleaning up runs: what is open is the parent's. The exit code is that of a SystemExit which `error` is, or
    came from, else 1, and the log has what was returned or raised.

    Args:
        process: the pid from before that code was called.
        error: what it raised; None where it returned.
    """
    if os.getpid() != process:
        _end(error)


def _end(error: BaseException | None) -> NoReturn:
    code = 1
    with suppress(BaseException):  # whatever a user's log handlers and streams raise: the child must not go on
        if error is None:
            logger.error(
                "a child process that an Executor forked returned from its method; expected os._exit in the child"
            )
        elif (exiting := raised_from(error, SystemExit)) is not None:
            code = _code(exiting)
        else:
            logger.error("a child process that an Executor forked failed", exc_info=loggable(error))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    os._exit(code)


def _code(exiting: SystemExit) -> int:
    if exiting.code is None:
        return 0
    if isinstance(exiting.code, int):
        return exiting.code & 0xFF
    sys.stderr.write(f"{exiting.code}\n")  # as Python does
    return 1
