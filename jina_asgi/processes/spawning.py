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

__all__ = ["OUR_MODULE", "handle_in_this_process", "heard"]

#: Python's options before a module of ours: without `-P` the working directory would come before the standard library,
#: and a folder `types` there would end the process. The user's own paths are set once the interpreter is up.
OUR_MODULE = ("-P", "-m")

_forking = threading.local()


def heard(number: int, frame: FrameType | None) -> None:
    """The handler of a signal that changes nothing: unlike SIG_IGN, programs that the process runs do not inherit it."""


def handle_in_this_process(handlers: Mapping[int, Any], *, as_usual: Mapping[int, Any]) -> None:
    """Handle signals in this process alone; in every child that it forks they do what they do `as_usual`.

    Signals are held back while a process is forked: one that came before the child is ready would be lost there. A
    library that replaced a handler by its own, which calls ours, keeps it in the child: ours does as usual there.

    Args:
        handlers: by the signal's number.
        as_usual: by the same numbers: Python's own handler, or SIG_DFL.
    """
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        usual = as_usual[number]
        if os.getpid() == owner:
            handlers[number](number, frame)
        elif callable(usual):
            usual(number, frame)
        else:
            signal.signal(number, usual)
            signal.raise_signal(number)

    def before() -> None:
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, handlers)

    def after() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)

    def in_child() -> None:
        signal.set_wakeup_fd(-1)  # it would wake the loop of the process that it was forked from
        for number in handlers:
            if signal.getsignal(number) is handle:  # the Executor may have its own
                signal.signal(number, as_usual[number])
        after()

    for number in handlers:
        signal.signal(number, handle)
    os.register_at_fork(before=before, after_in_parent=after, after_in_child=in_child)
