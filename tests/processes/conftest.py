"""One running server of each kind, shared by the tests that need no server of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from tests.doubles.rig import SERVERS, Journal, Served


class Running(NamedTuple):
    kind: str
    server: Served
    journal: Journal


@pytest.fixture(scope="session")
def shared() -> Iterator[Callable[[str], Running]]:
    """`apps:both` on a server, started by the first test that asks for it."""
    started: dict[str, Running] = {}
    with ExitStack() as stack:

        def ask(kind: str) -> Running:
            if kind not in started:
                journal = Journal()
                stack.callback(journal.close)
                served = stack.enter_context(Served(kind, "tests.doubles.apps:both", env=journal.env))
                started[kind] = Running(kind, served, journal)
            return started[kind]

        yield ask
        for kind, one in started.items():  # hundreds of clients left these: that is nobody's error
            assert "Traceback" not in one.server.log, f"{kind} logged:\n{one.server.log}"


@pytest.fixture(params=SERVERS)
def running(request: pytest.FixtureRequest, shared: Callable[[str], Running]) -> Running:
    return shared(request.param)


@pytest.fixture
def journal() -> Iterator[Journal]:
    made = Journal()
    yield made
    made.close()
