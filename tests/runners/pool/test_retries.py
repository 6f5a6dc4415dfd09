"""Whether a call runs again once its replica is gone."""

from __future__ import annotations

from collections import Counter

import pytest

from jina_asgi.errors import NotReady, ReplicaDied
from jina_asgi.runners.pool._restarts import CallRetries


def test_a_call_that_had_not_begun_moves_eight_times() -> None:
    counts = Counter[str]()
    retries = CallRetries(counts, may_repeat=False)
    assert [retries.may_retry(NotReady("gone")) for _ in range(9)] == [True] * 8 + [False]
    assert counts == {"moved": 9}


def test_a_call_that_had_begun_runs_again_once_where_it_may() -> None:
    counts = Counter[str]()
    retries = CallRetries(counts, may_repeat=True)
    assert retries.may_retry(ReplicaDied("gone"))
    with pytest.raises(ReplicaDied, match="two replicas died"):
        retries.may_retry(ReplicaDied("gone"))
    assert counts == {"retried": 1, "lost": 1}


def test_a_call_that_had_begun_does_not_where_it_may_not() -> None:
    counts = Counter[str]()
    with pytest.raises(ReplicaDied, match="whether it took effect is not known"):
        CallRetries(counts, may_repeat=False).may_retry(ReplicaDied("gone"))
    assert counts == {"lost": 1}
