"""When a failed request is asked again, and after how long."""

from __future__ import annotations

import pytest

from jina_asgi.clients.posts import Retries, may_repeat
from jina_asgi.errors import (
    BatchFailed,
    DeadlineExceeded,
    ExecutorError,
    InvalidDocs,
    JinaASGIError,
    NotReady,
    Overloaded,
    ReplicaDied,
)


def most(low: float, high: float) -> float:
    return high


def test_the_first_wait_is_the_option_and_the_next_grow_up_to_the_longest() -> None:
    retries = Retries(max_attempts=9, initial_backoff=0.5, max_backoff=2, backoff_multiplier=1.5)
    error = BatchFailed("x")
    assert [0.5, 0.75, 1.125, 1.6875, 2, 2] == [retries.wait(n, error, most) for n in range(1, 7)]
    assert 0.0 == retries.wait(2, error, lambda low, high: low)


def test_a_server_that_says_when_to_come_back_is_listened_to_up_to_the_longest_wait() -> None:
    retries = Retries(initial_backoff=0.1, max_backoff=2)
    waits = [retries.wait(1, Overloaded("full", retry_after=after), most) for after in (0.05, 1.5, 60)]
    assert [0.1, 1.5, 2] == waits


@pytest.mark.parametrize(
    ("error", "plain", "idempotent"),
    [
        (NotReady("loading"), True, True),
        (Overloaded("full"), True, True),
        (BatchFailed("x"), True, True),
        (ReplicaDied("gone"), False, True),
        (ExecutorError("x"), False, False),
        (InvalidDocs("x"), False, False),
        (DeadlineExceeded("x"), False, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_what_did_not_run_or_may_run_twice_is_asked_again(
    error: JinaASGIError, plain: bool, idempotent: bool
) -> None:
    assert (plain, idempotent) == (may_repeat(error, idempotent=False), may_repeat(error, idempotent=True))
