"""Nodes elsewhere: ours in a real Jina Flow, over gRPC, and a real Jina in a Flow of ours, over HTTP too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docarray import BaseDoc, DocList

from jina_asgi import Executor, ExecutorError, Flow, requests
from tests.doubles.uvicorn_server import free_port, free_ports
from tests.interop.conftest import OURS, running
from tests.interop.test_clients import ANSWERS

pytestmark = pytest.mark.processes


class Text(BaseDoc):
    text: str = ""


@pytest.fixture(scope="module", params=["deployment", "flow"])
def ours(request: pytest.FixtureRequest) -> Iterator[int]:
    port = free_port()
    with running(OURS, "serves.py", request.param, f"grpc={port}"):
        yield port


@pytest.fixture(scope="module", params=["deployment", "flow"])
def jinas(request: pytest.FixtureRequest, jina_python: Path) -> Iterator[dict[str, int]]:
    ports = dict(zip(("grpc", "http"), free_ports(2), strict=True))
    with running(jina_python, "serves.py", request.param, *(f"{name}={port}" for name, port in ports.items())):
        yield ports


def test_ours_is_an_external_executor_of_a_jina_flow(run: Callable[..., str], ours: int) -> None:
    """GR-01, GR-05: what fails there runs once: a Jina gateway repeats what an INTERNAL error, or a missing server, answers."""
    told: dict[str, dict[str, Any]] = {"far": {}, "bang, far": {}}
    for names, answers in told.items():
        for line in run("flow.py", str(ours), names).splitlines():
            if line.startswith('["'):
                _, name, said = json.loads(line)
                answers[name] = said
    alone = {
        "ready": True,
        "for it": ["A?", "B?"],
        "for another": ["A", "B"],
        "typed": ["aa", "bb"],
        "single": ["a", "b"],
        "unknown": ["default a", "default b"],
        "dict": ANSWERS["dict"],
        "whole": ANSWERS["whole"],
        "poison": "BadServer",
        "runs": ["3"],
    }
    second = {**alone, "for it": ["A!?", "B!?"], "for another": ["A!", "B!"], "runs": ["6"]}
    assert {"far": {**alone, "stream": ["q0", "q1", "q2"]}, "bang, far": second} == told


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_real_jina_is_an_external_node_of_ours(jinas: dict[str, int], protocol: str) -> None:
    class Bang(Executor):
        @requests(on="/upper")
        def bang(self, docs: DocList[Text]) -> DocList[Text]:
            return DocList[Text]([Text(id=doc.id, text=doc.text + "!") for doc in docs])

    where = f"{protocol}://127.0.0.1:{jinas[protocol]}"
    flow = Flow().add(uses=Bang, name="bang").add(external=True, host=where, name="far")
    two = [Text(text="a"), Text(text="b")]

    async def texts(on: str, parameters: dict[str, Any] | None = None) -> list[str]:
        return [doc["text"] for doc in await flow.call(on, two, parameters or {})]

    async with flow:
        assert ["A!?", "B!?"] == await texts("/upper", {"far__end": "?"})
        assert ["A!", "B!"] == await texts("/upper", {"other__end": "?"})
        assert ["aa", "bb"] == await texts("/typed", {"far__times": 2})
        assert ["a", "b"] == await texts("/single")
        assert ["default a", "default b"] == await texts("/nowhere")
        assert ["q0", "q1", "q2"] == [doc["text"] async for doc in flow.stream("/count", Text(text="q"))]
        for _ in range(3):
            with pytest.raises(ExecutorError, match="poison"):
                await texts("/poison")
        assert ["3"] == await texts("/runs")
