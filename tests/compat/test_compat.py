"""Programs written for Jina run unchanged: each test is one, in a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from jina_asgi.compat.__main__ import interpreter_options
from jina_asgi.compat.names import MODULES, Finder

ROOT = Path(__file__).parents[2]


def run(folder: Path, program: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Write `program.py`, and run a command of Python in its folder."""
    (folder / "program.py").write_text(dedent(program))
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def printed(folder: Path, program: str, *arguments: str, **env: str) -> list[str]:
    """The lines that a program prints under `python -m jina_asgi.compat`."""
    done = run(folder, program, "-m", "jina_asgi.compat", "program.py", *arguments, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def other_jina(folder: Path) -> str:
    """A folder with a package of the same name, as an installed Jina is one."""
    (folder / "site" / "jina").mkdir(parents=True)
    (folder / "site" / "jina" / "__init__.py").write_text("Executor = requests = None\n")
    return str(folder / "site")


EXECUTOR = """
from docarray import BaseDoc, DocList
from jina import Executor, requests

class Text(BaseDoc):
    text: str

class Upper(Executor):
    @requests
    def upper(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        return DocList[Text](Text(text=doc.text.upper()) for doc in docs)
"""


@pytest.mark.processes
def test_a_script_is_the_main_program_with_its_own_arguments_and_folder(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("HERE = 'beside'\n")
    program = """
        import sys, os
        from beside import HERE
        from jina import Executor
        import jina_asgi
        print(__name__, sys.argv, HERE, Executor is jina_asgi.Executor)
        sys.exit(7)
    """
    done = run(tmp_path, program, "-m", "jina_asgi.compat", "program.py", "--port", "1")
    assert done.stdout.splitlines() == ["__main__ ['program.py', '--port', '1'] beside True"], done.stderr
    assert done.returncode == 7


@pytest.mark.processes
def test_our_jina_goes_before_one_that_is_installed(tmp_path: Path) -> None:
    program = "import jina, jina_asgi\nprint(jina.Executor is jina_asgi.Executor)"
    before = os.pathsep.join([str(ROOT), other_jina(tmp_path)])
    assert printed(tmp_path, program, PYTHONPATH=before) == ["True"]


@pytest.mark.processes
def test_processes_that_a_program_starts_find_it_too(tmp_path: Path) -> None:
    program = """
        import multiprocessing, os, subprocess, sys

        def found(_=None):
            import jina
            return jina.Executor.__module__

        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.map(found, [1])[0])
            code = "import jina; print(jina.Executor.__module__)"
            subprocess.run([sys.executable, "-c", code], cwd="/", check=True)
    """
    assert printed(tmp_path, program) == ["jina_asgi.executors.executor"] * 2


@pytest.mark.processes
def test_a_module_may_be_run_as_well(tmp_path: Path) -> None:
    done = run(tmp_path, "import jina; print(__name__, jina.__version__)", "-m", "jina_asgi.compat", "-m", "program")
    assert done.stdout == "__main__ 3.34.0\n", done.stderr


@pytest.mark.processes
def test_without_a_script_it_says_how_it_is_used(tmp_path: Path) -> None:
    done = run(tmp_path, "", "-m", "jina_asgi.compat")
    assert done.returncode == 2
    assert "usage: python -m jina_asgi.compat script.py" in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-m", "jina_asgi.compat", "x.py", "-m"], []),
        (["-X", "dev", "-m", "jina_asgi.compat", "x.py", "-m"], ["-X", "dev"]),
        (["-um", "jina_asgi.compat", "x.py", "-m"], ["-u"]),
        (["-W", "error", "-mjina_asgi.compat", "x.py", "-m"], ["-W", "error"]),
    ],
)
def test_the_interpreters_own_options_stay(words: list[str], expected: list[str]) -> None:
    assert interpreter_options(words, 2) == expected


@pytest.mark.processes
def test_install_does_it_in_a_program(tmp_path: Path) -> None:
    program = """
        import jina_asgi.compat
        jina_asgi.compat.install()
        jina_asgi.compat.install()
        import jina
        print(jina.Deployment.__module__)
    """
    done = run(tmp_path, program, "program.py")
    assert done.stdout == "jina_asgi.compat.classes\n", done.stderr


@pytest.mark.processes
def test_install_refuses_where_another_jina_was_imported_before(tmp_path: Path) -> None:
    program = """
        import jina, jina_asgi.compat
        jina_asgi.compat.install()
    """
    site = other_jina(tmp_path)
    done = run(tmp_path, program, "program.py", PYTHONPATH=os.pathsep.join([str(ROOT), site]))
    assert f"RuntimeError: another jina has been imported already, from {site}" in done.stderr
    assert done.returncode == 1


@pytest.mark.processes
def test_every_name_is_there(tmp_path: Path) -> None:
    program = """
        import importlib
        from jina_asgi.compat.names import MODULES
        for module, names in MODULES.items():
            found = importlib.import_module(module)
            assert sorted(names) == found.__all__, module
            for name in names:
                assert getattr(found, name) is not None, name
        import jina
        print(jina.helper.random_port() > 0, jina.orchestrate.flow.base.Flow is jina.Flow, "Flow" in dir(jina))
    """
    assert printed(tmp_path, program) == ["True True True"]


@pytest.mark.processes
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("import jina.hubble", "jina.hubble is not offered by jina_asgi: jina has AsyncFlow, Client, Deployment,"),
        ("from jina import Hub", "jina.Hub is not offered by jina_asgi: jina has AsyncFlow, Client, Deployment,"),
        ("from jina.serve.runtimes.gateway import X", "jina.serve.runtimes is not offered by jina_asgi: there are the"),
        ("from jina.excepts import Bad", "jina.excepts.Bad is not offered by jina_asgi: jina.excepts has BadClient,"),
    ],
)
def test_what_is_not_there_is_an_import_error_that_lists_what_is(tmp_path: Path, line: str, said: str) -> None:
    program = f"""
        try:
            {line}
        except ImportError as error:
            print(error)
    """
    (found,) = printed(tmp_path, program)
    assert found.startswith(said)
    assert "docs/migrate.md" in found


def test_other_imports_are_none_of_its_business() -> None:
    assert all(Finder().find_spec(name) is None for name in ("jinja2", "jina_asgi", "os"))
    assert "jina" in MODULES


@pytest.mark.processes
def test_hasattr_is_false_for_what_is_not_there(tmp_path: Path) -> None:
    assert printed(tmp_path, "import jina\nprint(hasattr(jina, 'hub'))") == ["False"]


@pytest.mark.processes
def test_a_gateway_says_what_to_do_instead(tmp_path: Path) -> None:
    program = """
        from jina import Gateway
        from jina.excepts import NotSupportedError
        try:
            class Mine(Gateway):
                pass
        except NotSupportedError as error:
            print(error)
        try:
            Gateway()
        except NotSupportedError as error:
            print(error)
    """
    derived, made = printed(tmp_path, program)
    assert derived.startswith("class Mine(Gateway): there is no gateway here: mount the Deployment or the Flow")
    assert made.startswith("Gateway(): there is no gateway here")


@pytest.mark.processes
def test_a_deployment_is_served_and_asked_by_a_client_with_all_of_jinas_options(tmp_path: Path) -> None:
    program = f"""
        {indented(EXECUTOR)}
        import logging
        from jina import Client, Deployment
        from jina.enums import ProtocolType

        logging.basicConfig(format="%(message)s")
        if __name__ == "__main__":
            with Deployment(uses=Upper, protocol=ProtocolType.HTTP, metrics_exporter_port=1, quiet=True) as deployment:
                options = dict(metrics_exporter_port=1, grpc_channel_options={{}}, tracing=False, prefetch=3)
                client = Client(port=deployment.port, protocol=ProtocolType.from_string("HTTP"), **options)
                print(client.post("/", [Text(text="a")], return_type=DocList[Text]).text)
                print(client.is_flow_ready())
    """
    done = run(tmp_path, program, "-m", "jina_asgi.compat", "program.py")
    assert done.stdout.splitlines() == ["['A']", "True"], done.stderr
    assert done.stderr.count("'metrics_exporter_port' changes nothing here") == 1


@pytest.mark.processes
def test_a_flow_with_asyncio_is_asked_asynchronously(tmp_path: Path) -> None:
    program = f"""
        {indented(EXECUTOR)}
        import asyncio
        from jina import AsyncFlow, Flow
        from jina.types.request.data import DataRequest

        async def main():
            with Flow(protocol="http", asyncio=True, quiet=True).add(uses=Upper) as flow:
                print(isinstance(flow, AsyncFlow))
                async for docs in flow.post("/", [Text(text="a"), Text(text="b")], request_size=1, results_in_order=True, return_type=DocList[Text]):
                    print(docs.text)
            async with AsyncFlow(protocol="http", quiet=True).add(uses=Upper) as flow:
                print(await flow.is_flow_ready())
                async for answer in flow.index([Text(text="c")], return_responses=True, return_type=DocList[Text]):
                    print(isinstance(answer, DataRequest), answer.docs.text)

        if __name__ == "__main__":
            asyncio.run(main())
    """
    assert printed(tmp_path, program) == ["True", "['A']", "['B']", "True", "True ['C']"]


@pytest.mark.processes
def test_replicas_find_jina_in_the_module_of_their_executor(tmp_path: Path) -> None:
    (tmp_path / "upper.py").write_text(EXECUTOR)
    program = """
        from docarray import BaseDoc, DocList
        from jina import Deployment

        class Text(BaseDoc):
            text: str

        if __name__ == "__main__":
            with Deployment(uses="Upper", py_modules=["upper.py"], replicas=2, protocol="http", quiet=True) as deployment:
                print(deployment.post("/", [Text(text="a")], return_type=DocList[Text]).text)
    """
    assert printed(tmp_path, program) == ["['A']"]


@pytest.mark.processes
def test_replicas_of_a_class_in_the_program_itself_run_it_again_with_our_jina(tmp_path: Path) -> None:
    program = f"""
        import jina_asgi.compat
        jina_asgi.compat.install()
        {indented(EXECUTOR)}
        from jina import Deployment

        if __name__ == "__main__":
            with Deployment(uses=Upper, replicas=2, protocol="http", quiet=True) as deployment:
                print(deployment.post("/", [Text(text="b")], return_type=DocList[Text]).text)
    """
    done = run(tmp_path, program, "program.py")
    assert done.stdout.splitlines() == ["['B']"], done.stderr


@pytest.mark.processes
def test_the_logger_is_pythons_own_below_ours(tmp_path: Path) -> None:
    program = """
        import logging, sys
        logging.basicConfig(stream=sys.stdout, format="%(name)s %(levelname)s %(message)s", level="INFO")
        from jina.logging.logger import JinaLogger
        from jina.logging.predefined import default_logger
        with JinaLogger("mine", name="m0") as logger:
            logger.success("well %d", 1)
            logger.handlers.clear()
        default_logger.warning("hm")
    """
    assert printed(tmp_path, program) == ["jina_asgi.mine INFO m0: well 1", "jina_asgi.jina WARNING hm"]


@pytest.mark.processes
def test_write_marks_nothing_and_says_so(tmp_path: Path) -> None:
    program = """
        import logging, sys
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        from jina.serve.executors.decorators import write
        from jina import Executor, requests

        class Index(Executor):
            @requests(on="/index")
            @write
            def index(self, docs, **kwargs): ...

            @write()
            @requests(on="/delete")
            def delete(self, docs, **kwargs): ...
        print(sorted(Index.methods))
    """
    first, second, endpoints = printed(tmp_path, program)
    assert first == "@write on Index.index changes nothing here: state is not replicated"
    assert "Index.delete" in second
    assert endpoints == "['/delete', '/index']"


@pytest.mark.processes
def test_importing_jina_needs_no_docarray(tmp_path: Path) -> None:
    """A web worker in front of replicas has neither docarray nor torch."""
    program = "from jina import Client, Deployment, Flow\nimport sys\nprint('docarray' in sys.modules)"
    assert printed(tmp_path, program) == ["False"]


def indented(text: str) -> str:
    """Lines that stand in a program which is indented as tests are."""
    return text.strip().replace("\n", "\n        ")
