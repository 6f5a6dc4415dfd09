"""What programs written for Jina ask of Deployments, Flows and Executors beside what ours have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.compat.test_compat import printed

HEAD = """
import threading
from docarray import BaseDoc, DocList
from jina import Client, Deployment, Executor, Flow, requests

class Doc(BaseDoc):
    text: str = ""

class Up(Executor):
    @requests
    def up(self, docs: DocList[Doc], **kwargs) -> DocList[Doc]:
        for doc in docs:
            doc.text = doc.text.upper()

def said(error, do):
    try:
        do()
    except error as raised:
        return type(raised).__name__, str(raised)[:50]
"""


@pytest.mark.processes
def test_ports_and_protocols_are_set_before_it_starts_and_are_lists_where_there_are_several(tmp_path: Path) -> None:
    program = """
for made in (Deployment(uses=Up), Flow().add(uses=Up)):
    made.protocol = "http"
    made.port = 0
    print(made.protocol, made.port)
    with made:
        print(made.post("/", Doc(text="a"), return_type=DocList[Doc])[0].text, type(made.port).__name__)
        print(said(RuntimeError, lambda: setattr(made, "port", 1)))
    made.protocol, made.port = ["grpc", "http"], [0, 0]
    print(made.protocol, made.port)
"""
    lines = printed(tmp_path, HEAD + program)
    lines = [line for line in lines if " answers at " not in line]
    once = [["http 0", "A int"], ["['grpc', 'http'] [0, 0]"]]
    refused = [lines[2], lines[6]]
    assert [line.split(" is served already")[0] for line in refused] == [
        "('RuntimeError', 'executor",
        "('RuntimeError', 'flow",
    ]
    assert [*once[0], *once[1]] * 2 == [line for line in lines if line not in refused]


@pytest.mark.processes
def test_a_flow_is_configured_counted_and_plotted(tmp_path: Path) -> None:
    program = """
from jina.excepts import NotSupportedError
flow = Flow(workspace="ws", env={"A": "1"}).add(uses=Up, name="up", shards=2, replicas=2).add(uses=Up)
print(flow.num_pods, Deployment(uses=Up).num_pods, flow.build() is flow, flow.env, flow.workspace)
http = flow.config_gateway(protocol="http", port=0, title="It")
print(http.protocol, http.settings.title, flow.protocol)
print(said(NotSupportedError, lambda: flow.config_gateway(uses="MyGateway")))
seen = Flow().add(uses=Up, name="up").inspect(uses=Up).gather_inspect()
print(sorted(seen.graph.nodes), flow.plot("flow.mmd") is flow, flow.plot("flow.svg") is flow)
"""
    lines = printed(tmp_path, HEAD + program)
    assert [
        f"7 2 True {{'A': '1'}} {os.path.join(tmp_path, 'ws')}",
        "http It grpc",
        "('NotSupportedError', 'config_gateway(uses=...): there is no gateway here')",
        "['inspect', 'up'] True True",
    ] == [line.replace("here to replace", "here") for line in lines]
    assert (tmp_path / "flow.mmd").read_text() == (tmp_path / "flow.svg.mmd").read_text()
    assert "up" in (tmp_path / "flow.mmd").read_text()


@pytest.mark.processes
def test_an_executor_serves_itself_and_says_that_the_hub_is_gone(tmp_path: Path) -> None:
    program = """
from jina.helper import random_port
from jina.excepts import NotSupportedError
print(said(NotSupportedError, lambda: Executor.from_hub("jinahub://Up")))
over, port = threading.Event(), random_port()
serving = threading.Thread(target=Up.serve, kwargs={"port": port, "protocol": "http", "stop_event": over, "quiet": True})
serving.start()
client = Client(port=port, protocol="http")
while not client.is_flow_ready():
    over.wait(0.05)
print(client.post("/", Doc(text="a"), return_type=DocList[Doc])[0].text)
over.set()
serving.join()
"""
    assert ["('NotSupportedError', \"from_hub('jinahub://Up'): Jina's Hub is gone; get \")", "A"] == printed(
        tmp_path, HEAD + program
    )
