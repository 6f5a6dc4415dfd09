"""What lies in the working directory never stands in for Python's own modules in the processes that we start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
#: Modules that Python, or this library, imports as a process starts.
NAMES = ("types", "enum", "socket", "json", "asyncio", "struct")

EXECUTOR = """
    import types
    from jina_asgi import Executor, requests
    from pydantic import BaseModel

    class Text(BaseModel):
        text: str

    class Where(Executor):
        @requests
        def where(self, docs: list[Text], **kwargs) -> list[Text]:
            from beside import HERE
            return [Text(text=f"{HERE} {hasattr(types, 'FunctionType')}")]
"""
PROGRAM = """
    import asyncio, os, sys
    import jina_asgi  # and with it all of Python's own
    sys.path.insert(0, os.getcwd())  # as servers do for the application
    from jina_asgi import Deployment, ReplicaPool
    from where import Text, Where

    async def main():
        for made in (ReplicaPool(Where, replicas=1, env={"PYTHONPATH": "/nowhere"}), Deployment(Where, replicas=2)):
            async with made:
                [doc] = await made.call("/", [Text(text="")])
                print(doc.text)

    if __name__ == "__main__":
        asyncio.run(main())
"""


def test_replicas_and_their_host_start_where_packages_are_named_as_pythons_own(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('the {name} of the working directory')")
    (tmp_path / "where.py").write_text(dedent(EXECUTOR))
    (tmp_path / "beside.py").write_text("HERE = 'beside'\n")
    program = tmp_path / "bin" / "program.py"
    program.parent.mkdir()
    program.write_text(dedent(PROGRAM))
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ["beside True", "beside True"] == done.stdout.splitlines(), done.stderr
