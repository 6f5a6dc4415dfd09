"""What a pool host is asked for: the same code is the same question, new code another."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jina_asgi.executors.import_path import Uses
from jina_asgi.processes.handshake import HostRequest
from jina_asgi.settings import DeploymentSettings


@pytest.mark.parametrize("package", ["plain", "nested.without.init"])
def test_new_code_is_another_question_though_nothing_was_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    file = tmp_path.joinpath(*package.split("."), "model.py")
    file.parent.mkdir(parents=True)
    file.write_text("class Model: ...")
    monkeypatch.syspath_prepend(str(tmp_path))

    def fingerprint() -> str:
        return HostRequest.to_serve(Uses.at(f"{package}.model.Model"), DeploymentSettings()).fingerprint

    before = fingerprint()
    assert before == fingerprint()
    file.write_text("class Model: of = 'another size'")
    assert before != fingerprint()
    assert package.split(".")[0] not in sys.modules
