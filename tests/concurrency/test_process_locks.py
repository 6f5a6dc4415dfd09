"""A forked child waits for no lock that a thread of its parent held."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from jina_asgi import Client
from jina_asgi.concurrency import loops, process_wide
from jina_asgi.concurrency.process_wide import LoadLock, ProcessLock

pytestmark = [pytest.mark.processes, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")]
CLIENT = Client("http://127.0.0.1:1")
LOCK = ProcessLock()


def enter(lock: AbstractContextManager[None]) -> None:
    with lock:
        pass


def freeze() -> None:
    with process_wide.frozen():
        pass


@pytest.mark.parametrize(
    ("held", "use"),
    [
        (LOCK, lambda: enter(LOCK)),
        (LoadLock(), lambda: enter(LoadLock())),
        (loops._lock, lambda: loops.loop_thread("client")),
        (process_wide._lock, freeze),
        (CLIENT._lock, CLIENT.close),
        (CLIENT._lock, CLIENT.is_flow_ready),
    ],
    ids=["its own", "loading", "loops", "freezing", "closing", "asking"],
)
def test_what_a_thread_of_the_parent_held_is_free(
    held: AbstractContextManager[None], use: Callable[[], object]
) -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with held:
            inside.set()
            leave.wait()

    holding = threading.Thread(target=hold)
    holding.start()
    inside.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads: what this is about
        pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # ends a child that waits
        try:
            use()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    leave.set()
    holding.join()
    assert 0 == code
    use()
