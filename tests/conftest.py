"""Hypothesis in two ways: the same examples in every run of the tests, or a search for new ones (`tox run -e fuzz`).

Neither says how long one example may take: no test asserts that, and Hypothesis would by itself.
"""

import pytest
from hypothesis import settings

settings.register_profile("same", settings.default, deadline=None, derandomize=True)
settings.register_profile("search", settings.default, deadline=None, max_examples=1000)
settings.load_profile("same")


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage does not measure the processes that the test starts: it makes a start half as long again.

    For tests that start many processes whose code other tests measure.
    """
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
