"""YAML in a program written for Jina: values are what Jina makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jina_asgi.serving.config._substitution import as_argument
from tests.compat.test_compat import printed

PROGRAM = """
    import json
    from jina import Executor

    class Shown(Executor):
        def __init__(self, it=None, **kwargs):
            super().__init__(**kwargs)
            self.it = it

    print(json.dumps(Executor.load_config("shown.yml").it))
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            "[yes, no, Yes, on, off, y, 1_000, 017, 0x1f, 1.5, '7', 2020-01-01]",
            [True, False, True, "on", "off", "y", 1000, 15, 31, 1.5, "7", "2020-01-01"],
        ),
        ("['${{ ENV.PV }}', '$PV', 'v${{ ENV.PV }}', '${{ ENV.YES }}', $NOTHING]", [7, 7, "v7", True, "$NOTHING"]),
        ("{a: &a {k: '${{ ENV.PV }}'}, b: {<<: *a, l: 1}}", {"a": {"k": 7}, "b": {"k": 7, "l": 1}}),
    ],
)
def test_values_are_what_jina_makes_of_them(written: str, expected: Any, tmp_path: Path) -> None:
    (tmp_path / "shown.yml").write_text(f"jtype: Shown\nwith: {{it: {written}}}\n")
    assert [expected] == [json.loads(line) for line in printed(tmp_path, PROGRAM, PV="7", YES="true")]


@pytest.mark.processes
def test_a_yaml_is_found_beside_the_module_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "shown.yml").write_text("jtype: Shown\npy_modules: shown.py\n")
    (tmp_path / "part" / "shown.py").write_text("from jina import Executor\nclass Shown(Executor):\n    pass\n")
    (tmp_path / "part" / "__init__.py").write_text(
        "from jina import Deployment, Executor, Flow\n"
        "def made():\n"
        "    yield Executor.load_config('shown.yml')\n"
        "    yield Deployment(uses='shown.yml')\n"
        "    yield Flow().add(uses='shown.yml')['executor0']\n"
    )
    program = "from part import made\nprint([type(one).__name__ for one in made()])"
    assert ["['Shown', 'Deployment', 'Deployment']"] == printed(tmp_path, program)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7),
        ("-1.5", -1.5),
        ("TRUE", True),
        ("false", False),
        ("", None),
        ("'7'", "7"),
        ("[a, 1, true]", ["a", 1, True]),
        ("[]", []),
        ("nan", "nan"),
        ("9" * 5000, "9" * 5000),
        ("1e999", "1e999"),
        ("no", "no"),
    ],
)
def test_a_text_that_stood_for_something_else_is_read_as_an_argument(text: str, expected: Any) -> None:
    assert expected == as_argument(text)
