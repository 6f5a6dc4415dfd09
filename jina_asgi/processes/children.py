"""How the processes that we start begin, and what their own children do not inherit.

That is the handlers of signals, as these are about our own ends.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any

__all__ = ["OUR_MODULE", "heard", "unhandled_in_children"]

#: Python's options before a module of ours: without `-P` the working directory would come before the standard library,
#: and a folder `types` there would end the process. The user's own paths are set once the interpreter is up.
OUR_MODULE = ("-P", "-m")

_forking = threading.local()


def heard(number: int, frame: FrameType | None) -> None:
    """The handler of a signal that changes nothing: unlike SIG_IGN, programs that the process runs do not inherit it."""


def unhandled_in_children(handlers: Mapping[int, Any], *, as_usual: Mapping[int, Any]) -> None:
    """Have signals do what they do `as_usual` in every child that this process forks, where these handle them here.

    They are held back while a process is forked: one that came before the child is ready would be lost there.
    """

    def before() -> None:
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, handlers)

    def after() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)

    def in_child() -> None:
        signal.set_wakeup_fd(-1)  # it would wake the loop of the process that it was forked from
        for number, handler in handlers.items():
            if signal.getsignal(number) is handler:  # the Executor may have its own
                signal.signal(number, as_usual[number])
        after()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=in_child)
