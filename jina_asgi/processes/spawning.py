"""How child processes are started, and which signal handlers their own children do not inherit."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any

__all__ = ["OUR_MODULE", "handle_in_this_process", "ignore_signal"]

#: Python's options for running a module of this library: without `-P` a folder `types` in the working directory would
#: hide the standard library. The user's own paths are set once the interpreter runs.
OUR_MODULE = ("-P", "-m")

_forking = threading.local()


def ignore_signal(number: int, frame: FrameType | None) -> None:
    """A signal handler that does nothing: unlike SIG_IGN, programs that the process runs do not inherit it."""


def handle_in_this_process(handlers: Mapping[int, Any], *, as_usual: Mapping[int, Any]) -> None:
    """Handles signals in this process alone; in its forked children they do what they do `as_usual`.

    Signals are blocked while a process is forked: one that came before the child is ready would be lost. If a library
    replaced a handler by its own, which calls ours, the child keeps the library's: ours then acts as usual.

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
        signal.set_wakeup_fd(-1)  # it would wake the event loop of the parent process
        for number in handlers:
            if signal.getsignal(number) is handle:  # the Executor may have a handler of its own
                signal.signal(number, as_usual[number])
        after()

    for number in handlers:
        signal.signal(number, handle)
    os.register_at_fork(before=before, after_in_parent=after, after_in_child=in_child)
