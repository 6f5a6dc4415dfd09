"""What is read beside the event loop: its errors arrive, and what is given up holds up nobody and keeps nothing."""

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from contextvars import ContextVar
from typing import NoReturn

import pytest

from jina_asgi import DeadlineExceeded
from jina_asgi.concurrency.offload import parse_in_thread

ASKED = ContextVar("ASKED", default="")


class Body:
    """What was sent."""


class Slow:
    """What reads until it is told to end."""

    def __init__(self) -> None:
        self.begun, self.ends = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.ends.wait(10)
        return "read"


async def given_up(read: list[Body], late: bool) -> Body:
    """What was to be appended, by a caller who waits no more."""
    body = Body()
    second = asyncio.ensure_future(parse_in_thread(time.monotonic() + 0.05 if late else None, read.append, body))
    await asyncio.sleep(0)
    if not late:
        second.cancel()
    with pytest.raises(DeadlineExceeded if late else asyncio.CancelledError):
        await second
    return body


async def test_what_was_read_comes_back_and_the_callers_context_is_seen() -> None:
    ASKED.set("by me")
    assert ("by me", "jina-asgi-reads", 3) == await parse_in_thread(
        None, lambda n: (ASKED.get(), threading.current_thread().name, n), 3
    )


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration(1), SystemExit(1), KeyboardInterrupt()], ids=repr)
async def test_an_error_arrives_whatever_it_is(error: BaseException) -> None:
    def fails() -> NoReturn:
        raise error

    expected = ValueError if isinstance(error, ValueError) else RuntimeError
    with pytest.raises(expected):
        await asyncio.wait_for(parse_in_thread(None, fails), 10)
    assert 1 == await parse_in_thread(None, lambda: 1)


async def test_one_is_read_after_another() -> None:
    slow = Slow()
    order: list[int] = []
    first = asyncio.ensure_future(parse_in_thread(None, slow))
    assert await asyncio.to_thread(slow.begun.wait, 10)
    others = [asyncio.ensure_future(parse_in_thread(None, order.append, number)) for number in range(3)]
    await asyncio.sleep(0)
    assert [] == order
    slow.ends.set()
    assert "read" == await first
    await asyncio.gather(*others)
    assert [0, 1, 2] == order


@pytest.mark.parametrize("late", [False, True], ids=["its caller left", "its deadline passed"])
async def test_what_is_given_up_is_not_kept_until_its_turn_and_never_read(late: bool) -> None:
    slow = Slow()
    read: list[Body] = []
    first = asyncio.ensure_future(parse_in_thread(None, slow))
    assert await asyncio.to_thread(slow.begun.wait, 10)
    bodies = [weakref.ref(await given_up(read, late)) for _ in range(3)]
    await asyncio.sleep(0.01)
    gc.collect()  # errors have frames
    assert [None, None, None] == [body() for body in bodies]
    slow.ends.set()
    assert "read" == await first
    assert [] == await parse_in_thread(None, lambda: list(read))


async def test_a_deadline_that_passed_before_is_reported() -> None:
    with pytest.raises(DeadlineExceeded):
        await parse_in_thread(time.monotonic() - 1, time.sleep, 0)


@pytest.mark.processes
def test_what_never_ends_holds_up_no_exit() -> None:
    program = """
        import asyncio, time
        from jina_asgi.concurrency.offload import parse_in_thread

        async def main():
            asyncio.ensure_future(parse_in_thread(None, time.sleep, 60))
            await asyncio.sleep(0.2)

        asyncio.run(main())
        print("over")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=30, check=True
    )
    assert ("over", "") == (done.stdout.strip(), done.stderr)


@pytest.mark.processes
def test_a_fork_reads_in_a_thread_of_its_own() -> None:
    program = """
        import asyncio, os
        from jina_asgi.concurrency.offload import parse_in_thread

        assert os.getpid() == asyncio.run(parse_in_thread(None, os.getpid))
        child = os.fork()
        if not child:
            found = asyncio.run(parse_in_thread(None, os.getpid))
            os._exit(0 if found == os.getpid() else 1)
        assert 0 == os.waitpid(child, 0)[1]
        print("both")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=30, check=True
    )
    assert "both" == done.stdout.strip()


async def test_only_young_objects_are_searched_for_garbage_while_many_are_made() -> None:
    before, searched = gc.get_threshold(), list[int]()

    def search(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and threading.current_thread() is not threading.main_thread():
            searched.append(info["generation"])

    gc.callbacks.append(search)
    try:
        assert 500_000 == len(await parse_in_thread(None, lambda: [[number] for number in range(500_000)]))
    finally:
        gc.callbacks.remove(search)
    assert searched
    assert 2 not in searched
    assert before == gc.get_threshold()
