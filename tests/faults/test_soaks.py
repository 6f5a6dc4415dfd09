"""The soaks themselves, as short as they get: `tox -e soak` has the whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.doubles.rig import ROOT

pytestmark = pytest.mark.processes


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    "words",
    [
        ["soak_server.py", "--replicas", "1", "--workers", "2", "--hosts", "1"],
        ["soak_server.py", "--reloads", "1", "--recycled", "800"],
        ["soak_starts.py", "--crowds", "1", "--starts", "2"],
        ["soak_day.py", "--seconds", "10", "--rate", "40", "--counts"],
    ],
    ids=" ".join,
)
def test_nothing_is_wrong_silent_or_left(words: list[str]) -> None:
    """RP-01, RP-15, RP-16, GU-01, GU-02, GU-06."""
    script, *counts = words
    command = [sys.executable, str(ROOT / "tests/faults" / script), *counts]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "BROKEN" not in ran.stdout
