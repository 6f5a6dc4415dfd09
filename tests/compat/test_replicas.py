"""Replicas of programs written for Jina, which forks: one is in process, and for several a class must be importable."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.test_compat import EXECUTOR, indented, printed, run

UNGUARDED = f"""
        {indented(EXECUTOR)}
        from jina import Deployment

        with Deployment(uses=Upper, replicas=COUNT, protocol="http", quiet=True) as deployment:
            print(deployment.post("/", [Text(text="a")], return_type=DocList[Text]).text)
"""


@pytest.mark.processes
def test_one_replica_is_in_process_so_a_program_needs_no_guard(tmp_path: Path) -> None:
    assert ["['A']"] == printed(tmp_path, UNGUARDED.replace("COUNT", "1"))


@pytest.mark.processes
def test_one_replica_of_a_class_in_a_function_is_in_process(tmp_path: Path) -> None:
    program = f"""
        {indented(EXECUTOR)}
        from jina import Flow

        def local():
            class Local(Upper):
                pass
            return Local

        with Flow(protocol="http", replicas=1, quiet=True).add(uses=local(), replicas=1, shards=2) as flow:
            print(flow.post("/", [Text(text="a")], return_type=DocList[Text]).text)
    """
    assert ["['A']"] == printed(tmp_path, program)


@pytest.mark.processes
def test_several_replicas_and_one_in_a_pool_need_a_class_that_can_be_imported(tmp_path: Path) -> None:
    program = f"""
        {indented(EXECUTOR)}
        from jina import Deployment

        def local():
            class Local(Upper):
                pass
            return Local

        for options in (dict(replicas=2), dict(replicas=1, placement="pool"), dict(env=dict(A="b"))):
            try:
                Deployment(uses=local(), **options)
            except Exception as error:
                print(error)
    """
    said = (
        "Local cannot be imported again by another process, which replicas need; define it at the top level of a module"
    )
    assert [True] * 3 == [line.endswith(said) for line in printed(tmp_path, program)]


@pytest.mark.processes
def test_several_replicas_of_a_program_without_a_guard_say_what_belongs_below_one(tmp_path: Path) -> None:
    done = run(tmp_path, UNGUARDED.replace("COUNT", "2"), "-m", "jina_asgi.compat", "program.py")
    assert 1 == done.returncode
    said = done.stderr.splitlines()[-1]
    assert "executor would be served here too, in a replica of what the program itself serves" in said
    assert said.endswith("belongs below `if __name__ == '__main__':`")


@pytest.mark.processes
def test_what_a_program_makes_and_does_not_serve_needs_no_guard(tmp_path: Path) -> None:
    program = f"""
        {indented(EXECUTOR)}
        from jina import Deployment

        deployment = Deployment(uses=Upper, replicas=2, protocol="http", quiet=True)
        if __name__ == "__main__":
            with deployment:
                print(deployment.post("/", [Text(text="a")], return_type=DocList[Text]).text)
    """
    assert ["['A']"] == printed(tmp_path, program)
