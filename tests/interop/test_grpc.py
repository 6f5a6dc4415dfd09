"""GR-01: Jina's Client and ours ask a real Jina and ours, a Deployment and a Flow, the same things over gRPC."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docarray import BaseDoc, DocList

from jina_asgi import Executor, ExecutorError, Flow, requests
from tests.interop.conftest import HERE, environment, running
from tests.serving import free_port

pytestmark = pytest.mark.processes


class Text(BaseDoc):
    text: str = ""


ANSWERS: dict[str, Any] = {
    "ready": True,
    "upper": ["A!", "B!"],
    "number": ["A7", "B7"],
    "for this one": ["A?", "B?"],
    "for another": ["A", "B"],
    "typed": ["aaa", "bbb"],
    "of a model": ["aa!", "bb!"],
    "typed wrongly": "BadServer",
    "single": ["ba", "dc"],
    "one document": "X",
    "root": ["default a", "default b"],
    "unknown": ["default a", "default b"],
    "nothing": ["0"],
    "whole": ["n", 8, 0.5, True, "00ff", ["x", "y"], [2.0, 4.0], [[1.0], [2.0]], [2, 1], True],
    "fail": "BadServer",
    "callbacks": [
        None,
        ["['always']", "['always']", "['always']", "['done', ['fine']]", "['done', ['good']]", "['error', ['bad'], 1]"],
    ],
    "responses": [{"model/rep-0": {"n": 2}}, ["gateway", "model"], 2],
    "sizes": ["100", "100", "50"],
    "in order": True,
    "a few at once": 250,
    "not streamed": ["A", "B"],
    "generator": ["X", "Y", "Z"],
    "metadata": ["A", "B"],
    "async ready": True,
    "async": [["X", "Y"], ["Z"]],
    "stream": ["q0", "q1", "q2"],
}
#: Jina's Client gives the documents of a failed request when it goes on, divides by a size of 0, and finds out from the
#: server's answer that an endpoint is no stream.
OF_JINAS_CLIENT = {"go on": ["bad", "fine", "good"], "all in one": "ZeroDivisionError", "no stream": "BadServer"}
OF_OURS = {"go on": ["fine", "good"], "all in one": ["250"], "no stream": "BadClientInput"}


@pytest.fixture(scope="module", params=["deployment", "flow"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def jinas(jina_python: Path, kind: str) -> Iterator[int]:
    """The port of a real Jina."""
    port = free_port()
    with running(jina_python, "grpc_serves.py", kind, str(port)):
        yield port


@pytest.fixture(scope="module")
def ours(kind: str) -> Iterator[int]:
    """The port of ours."""
    port = free_port()
    with running(sys.executable, "grpc_serves.py", kind, str(port)):
        yield port


@pytest.fixture(scope="module")
def ask(jina_python: Path) -> Callable[..., dict[str, Any]]:
    """What a Client is told: Jina's, or ours."""

    def asked(port: int, *, by_jina: bool) -> dict[str, Any]:
        command = [str(jina_python if by_jina else sys.executable), str(HERE / "grpc_asks.py"), str(port)]
        own: dict[str, Any] = {"env": environment()} if by_jina else {}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **own)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith('["'))

    return asked


def expected(kind: str, of_client: dict[str, Any], *, gateway: str = "model") -> dict[str, Any]:
    """A Deployment is nobody's node by name: a parameter for one is for another."""
    answers = {**ANSWERS, **of_client}
    answers["responses"] = [ANSWERS["responses"][0], sorted({"gateway", gateway}), 2]
    return {**answers, "for this one": ["A", "B"]} if kind == "deployment" else answers


def test_jinas_client_asks_ours(ask: Callable[..., dict[str, Any]], ours: int, kind: str) -> None:
    assert expected(kind, OF_JINAS_CLIENT) == ask(ours, by_jina=True)


def test_our_client_asks_a_real_jina(ask: Callable[..., dict[str, Any]], jinas: int, kind: str) -> None:
    name = "executor" if kind == "deployment" else "model"  # what a real Deployment calls itself in routes
    assert expected(kind, OF_OURS, gateway=name) == ask(jinas, by_jina=False)


def test_our_client_asks_ours(ask: Callable[..., dict[str, Any]], ours: int, kind: str) -> None:
    assert expected(kind, OF_OURS) == ask(ours, by_jina=False)


def test_the_answers_are_those_of_jina_alone(ask: Callable[..., dict[str, Any]], jinas: int, kind: str) -> None:
    """What is expected above is what Jina's own Client is told by its own server."""
    name = "executor" if kind == "deployment" else "model"
    assert expected(kind, OF_JINAS_CLIENT, gateway=name) == ask(jinas, by_jina=True)


def test_ours_is_an_external_executor_of_a_jina_flow(jina_python: Path, ours: int) -> None:
    """GR-05: what fails there runs once: a Jina gateway repeats what an INTERNAL error, or a missing server, answers."""
    command = [str(jina_python), str(HERE / "grpc_flow.py"), str(ours)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment())
    told = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith('["'))
    assert {
        "ready": True,
        "upper": ["A!?", "B!?"],
        "unknown": ["default a", "default b"],
        "whole": ANSWERS["whole"],
        "poison": "BadServer",
        "runs": ["3"],
    } == told, done.stderr


async def test_a_real_jina_is_an_external_node_of_ours(jinas: int) -> None:
    class Bang(Executor):
        @requests(on="/upper")
        def bang(self, docs: DocList[Text]) -> DocList[Text]:
            return DocList[Text]([Text(id=doc.id, text=doc.text + "!") for doc in docs])

    flow = Flow().add(uses=Bang, name="bang").add(external=True, host="127.0.0.1", port=jinas, name="far")
    async with flow:
        docs = await flow.call("/upper", [Text(text="a"), Text(text="b")], {"end": "?"})
        steps = [doc["text"] async for doc in flow.stream("/count", Text(text="q"))]
        with pytest.raises(ExecutorError, match="boom"):
            await flow.call("/fail", [Text(text="bad")])
    assert ["A!?", "B!?"] == [doc["text"] for doc in docs]
    assert ["q0", "q1", "q2"] == steps
