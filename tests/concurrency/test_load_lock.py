"""Turns at making Executors: one at a time, and none waits for one that was given up."""

from __future__ import annotations

import threading

from jina_asgi.concurrency.process_wide import LoadLock


def entered(turn: LoadLock, done: threading.Event) -> None:
    with turn:
        done.set()


def test_one_waits_for_the_other() -> None:
    done = threading.Event()
    with LoadLock():
        waiting = threading.Thread(target=entered, args=(LoadLock(), done))
        waiting.start()
        assert not done.wait(0.05)
    assert done.wait(5)
    waiting.join()


def test_none_waits_for_one_that_was_given_up() -> None:
    hung, done = LoadLock(), threading.Event()
    with hung:
        hung.release()
        waiting = threading.Thread(target=entered, args=(LoadLock(), done))
        waiting.start()
        assert done.wait(5)
        waiting.join()


def test_one_that_was_given_up_while_it_waited_leaves_the_turn_to_the_next() -> None:
    abandoned, done = LoadLock(), threading.Event()
    abandoned.release()
    with abandoned:
        waiting = threading.Thread(target=entered, args=(LoadLock(), done))
        waiting.start()
        assert done.wait(5)
        waiting.join()


def test_one_within_another_is_part_of_it() -> None:
    with LoadLock(), LoadLock():
        pass
    with LoadLock():
        pass
