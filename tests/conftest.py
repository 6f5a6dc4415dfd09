"""Hypothesis in two ways: the same examples in every run of the tests, or a search for new ones (`tox run -e fuzz`).

Neither says how long one example may take: no test asserts that, and Hypothesis would by itself.

`--no-processes` leaves out the tests with the marker `processes`, and has any other that starts a process fail.
"""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("same", settings.default, deadline=None, derandomize=True)
settings.register_profile("search", settings.default, deadline=None, max_examples=1000)
settings.load_profile("same")

#: What Python tells its audit hooks as a process starts.
STARTS = frozenset({"os.fork", "os.forkpty", "os.posix_spawn", "subprocess.Popen"})


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "leave out the tests marked `processes`; another that starts a process fails"
    parser.addoption("--no-processes", action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--no-processes"):
        config.pluginmanager.register(NoProcesses(), "no-processes")


class NoProcesses:
    """Deselects the tests that start processes, and fails those that do so without the marker."""

    def __init__(self) -> None:
        self._runs = False
        self._started: list[str] = []
        sys.addaudithook(self._audit)

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        left_out = [item for item in items if item.get_closest_marker("processes")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("processes")]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        self._started, self._runs = [], True
        try:
            return (yield)
        finally:
            self._runs = False

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self) -> Iterator[None]:
        result = yield
        assert not self._started, f"it started a process ({self._started[0]}), and lacks the marker `processes`"
        return result

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._runs and event in STARTS:
            self._started.append(f"{event}: {arguments[0] if arguments else ''}"[:200])


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage does not measure the processes that the test starts: it makes a start half as long again.

    For tests that start many processes whose code other tests measure.
    """
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
