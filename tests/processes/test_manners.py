"""An Executor in a replica whose code is no good to touch: each caller has a short typed error, and the replica goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import pytest_asyncio

from jina_asgi import ExecutorError, ExecutorInputError, JinaASGIError, ReplicaPool
from tests.doubles.bad_manners import ENDPOINTS, ERRORS, LISTS, REFUSALS, VALUES, Rude, Word
from tests.doubles.replica_watch import seats

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]

LONGEST = 8192
AT_ONCE = 10.0  # seconds, on a busy machine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[ReplicaPool]:
    """One for all of these tests: each leaves it as it was."""
    async with ReplicaPool(Rude, replicas=1) as pool:
        yield pool


async def answered(pool: ReplicaPool, endpoint: str, text: str) -> Any:
    """The text of the first document of an answer, or the error."""
    try:
        async with asyncio.timeout(AT_ONCE):
            if not endpoint.endswith("stream"):
                return (await pool.call(endpoint, [Word(text=text)]))[0].text
            async with aclosing(pool.stream(endpoint, Word(text=text))) as steps:
                return (await anext(steps)).text
    except JinaASGIError as error:
        return error


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_whatever_an_executor_does_is_a_short_typed_error_and_its_replica_goes_on(
    pool: ReplicaPool, endpoint: str
) -> None:
    for text in (*ERRORS, *REFUSALS, *VALUES, *(LISTS if "batch" in endpoint else ())):
        failed = await answered(pool, endpoint, text)
        assert (text, ExecutorInputError if text in REFUSALS else ExecutorError) == (text, type(failed))
        assert len(str(failed).encode()) < LONGEST
        assert "calm" == await answered(pool, endpoint, "calm")
    assert (0, "ready") == (seats(pool)[0]["restarts"], seats(pool)[0]["state"])


@pytest.mark.parametrize("endpoint", ["/uncomputed", "/unwritten", "/unwritten_stream"])
async def test_documents_that_raise_as_they_are_written_leave_the_replica_as_it_was(
    pool: ReplicaPool, endpoint: str
) -> None:
    await answered(pool, endpoint, "x")
    assert "calm" == await answered(pool, "/sync_batch", "calm")
    assert (0, "ready") == (seats(pool)[0]["restarts"], seats(pool)[0]["state"])
