"""Makes `signal.signal` harmless in an Executor's `__init__`, which runs in a thread here."""

from __future__ import annotations

import functools
import logging
import signal
import threading
from typing import Any

from jina_asgi.concurrency.process_wide import is_making

logger = logging.getLogger("jina_asgi")


def install() -> None:
    """Makes `signal.signal` log a warning and do nothing while an Executor is being created in a thread.

    Elsewhere it stays Python's own; installing it again does nothing.
    """
    original = signal.signal
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def signal_of_main_thread(number: Any, handler: Any) -> Any:
        if not is_making() or threading.current_thread() is threading.main_thread():
            return original(number, handler)
        logger.warning(
            "signal.signal(%s, ...) in an Executor's __init__ changes nothing: signals belong to the program that serves"
            " it; give back what it took in close()",
            getattr(number, "name", number),
        )
        return signal.getsignal(number)

    signal.signal = signal_of_main_thread  # type: ignore[assignment]  # of the same arguments
