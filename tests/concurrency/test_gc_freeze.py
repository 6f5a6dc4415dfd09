"""What loading made is out of the garbage collector's sight while it is served, and back in it afterwards."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from jina_asgi import Executor, JinaASGI, requests
from jina_asgi.concurrency import process_wide
from jina_asgi.concurrency.process_wide import frozen
from jina_asgi.testing import client
from tests.doubles.reference_cycles import end_dropped_applications

HOST_HAS_FROZEN = """
import gc
from jina_asgi.concurrency.process_wide import frozen
gc.freeze()
with frozen():
    pass
print(gc.get_freeze_count() > 0)
"""


class Empty(Executor):
    @requests(on="/nothing")
    def nothing(self, **kwargs: object) -> None:
        """Nothing."""


@pytest.fixture(autouse=True)
def nothing_frozen() -> Iterator[None]:
    end_dropped_applications()
    assert (process_wide._serving, gc.get_freeze_count()) == (0, 0)
    yield
    assert (process_wide._serving, gc.get_freeze_count()) == (0, 0)


def test_frozen_while_anybody_asks_for_it() -> None:
    with frozen():
        with frozen():
            assert gc.get_freeze_count() > 1000
        assert gc.get_freeze_count() > 1000


def test_what_is_made_while_serving_is_collected() -> None:
    with frozen():
        ring: list[object] = []
        ring.append(ring)
        del ring
        assert gc.collect() >= 1


async def test_an_application_freezes_what_it_has_loaded() -> None:
    async with client(JinaASGI(Empty, wait_ready=True)):
        assert gc.get_freeze_count() > 1000


@pytest.mark.processes
def test_what_a_host_has_frozen_stays_frozen() -> None:
    done = subprocess.run([sys.executable, "-c", HOST_HAS_FROZEN], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]
