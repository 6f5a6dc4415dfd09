"""Programs written for Jina that have Executors before and after shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.compat.test_compat import printed

PROGRAM = Path(__file__).parent.parent / "interop" / "around.py"
SEEN = "before w ['gateway'] 1", "shard 0 w ['index']"
OF_BOTH = {
    "index/uses_before-0": {"name": "index/uses_before-0", "shard": 0},
    "index/uses_after-0": {"name": "index/uses_after-0"},
}
#: As a real Jina answers; tests/interop asks one.
ANSWERS: dict[str, Any] = {
    "one_of_them": {
        "pods": 6,
        "go": [["2 1 w", json.dumps([[[*SEEN], [*SEEN]]])]],
        "own": "['gateway']",
        "dict": OF_BOTH,
        "shards": ["index/shard-0/rep-0"],
    },
    "one_shard": {
        "pods": 2,
        "go": [["a", "shard 0 w ['gateway']"], ["b", "shard 0 w ['gateway']"]],
        "own": "['gateway']",
        "dict": {"index/rep-0": {"shard": 0}},
        "shards": [],
    },
}


@pytest.mark.processes
@pytest.mark.parametrize("case", ANSWERS)
def test_they_count_where_there_are_several_shards(case: str, tmp_path: Path) -> None:
    (line,) = [
        line for line in printed(tmp_path, PROGRAM.read_text(encoding="utf-8"), case) if line.startswith("told ")
    ]
    assert json.loads(line.removeprefix("told ")) == ANSWERS[case]
