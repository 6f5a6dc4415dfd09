"""What fails in a program written for Jina is caught by the names that Jina has for it, and looks as it does there."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from docarray import BaseDoc, DocList

from jina_asgi import Deployment, Executor, requests
from jina_asgi.clients.responses import Route
from jina_asgi.errors import ExecutorError
from jina_asgi.excepts import BadServer
from tests.compat.test_compat import printed

FAILS = """
from docarray import BaseDoc, DocList
from jina import Deployment, Executor, Flow, requests
from jina.excepts import RuntimeFailToStart

class Doc(BaseDoc):
    text: str = ""

class Other(BaseDoc):
    number: int

class Broken(Executor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        raise ValueError("no model")

class Texts(Executor):
    @requests
    def say(self, docs: DocList[Doc], **kwargs) -> DocList[Doc]:
        return docs

class Numbers(Executor):
    @requests
    def say(self, docs: DocList[Other], **kwargs) -> DocList[Other]:
        return docs

def main():
    try:
        with {made}:
            print("runs")
    except RuntimeFailToStart as error:
        print(type(error.__cause__).__name__)

if __name__ == "__main__":
    main()
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("made", "cause"),
    [
        ("Deployment(uses=Broken)", "ValueError"),
        ("Deployment(uses=Broken, replicas=2)", "ExecutorError"),
        ("Flow().add(uses=Broken)", "ValueError"),
        ("Deployment(uses='nowhere.yml')", "NoneType"),
        ("Flow().add(uses='nowhere.yml')", "NoneType"),
        ("Flow().add(uses=Texts).add(uses=Numbers)", "NoneType"),
    ],
)
def test_what_does_not_start_is_caught_by_jinas_name(made: str, cause: str, tmp_path: Path) -> None:
    assert [cause] == printed(tmp_path, FAILS.replace("{made}", made))


SHARDS = """
import json, sys
from docarray import BaseDoc, DocList
from jina import Deployment, Executor, requests

class Doc(BaseDoc):
    text: str = ""

class Index(Executor):
    @requests(on="/search")
    def search(self, docs: DocList[Doc], parameters, **kwargs) -> DocList[Doc]:
        if self.runtime_args.shard_id < parameters["fail"]:
            raise ValueError("no index")
        return DocList[Doc]([Doc(id=doc.id, text=f"of {self.runtime_args.shard_id}") for doc in docs])

def main():
    with Deployment(uses=Index, shards=2) as deployment:
        for fail in (0, 1, 2):
            got = deployment.post("/search", Doc(), parameters={"fail": fail}, return_responses=True,
                continue_on_error=True, return_type=DocList[Doc])[0]
            print(json.dumps([got.status.code, [doc.text for doc in got.docs][-1:]]))

if __name__ == "__main__":
    main()
"""


@pytest.mark.processes
def test_the_other_shards_answer_where_one_fails_and_all_that_fail_are_an_error(tmp_path: Path) -> None:
    lines = printed(tmp_path, SHARDS)[-3:]
    assert [0, 0, 1] == [json.loads(line)[0] for line in lines]
    assert ["of 1"] == json.loads(lines[1])[1]


class Doc(BaseDoc):
    text: str = ""


class Index(Executor):
    @requests(on="/search")
    def search(self, docs: DocList[Doc], **kwargs: object) -> DocList[Doc]:
        if self.runtime_args.shard_id == 0:
            raise ValueError("no index")
        return docs


async def test_elsewhere_a_call_to_all_shards_fails_where_one_of_them_does() -> None:
    async with Deployment(uses=Index, shards=2) as deployment:
        with pytest.raises(ExecutorError, match="no index"):
            await deployment.call("/search", [Doc()])


@pytest.mark.parametrize("protocol", ["http", "websocket", "grpc"])
def test_an_error_has_the_header_in_its_arguments_and_the_routes_in_its_response(protocol: str) -> None:
    with Deployment(uses=Index, name="index", shards=2, protocol=protocol) as deployment:
        with pytest.raises(BadServer) as raised:
            deployment.post("/search", Doc(), return_type=DocList[Doc])
        (failed,) = deployment.post("/search", Doc(), return_responses=True, continue_on_error=True)
    assert raised.value.args == (raised.value.header,)
    assert raised.value.args[0].status.code == 1
    assert str(raised.value).startswith("ExecutorError: ")
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    assert failed.routes[0].executor == "gateway"
    assert {1} == {route.status.code for route in failed.routes}


def test_the_routes_of_an_answer_are_objects_too() -> None:
    said = {"executor": "model", "startTime": "1", "status": {"code": "ERROR", "description": "no"}}
    route = Route.of(said)
    assert ("model", "1", "", 1, "no") == (
        route.executor,
        route.start_time,
        route.end_time,
        route.status.code,
        route.status.description,
    )
    assert {**said, "endTime": ""} == route.described()
    assert Route("") == Route.of("nothing")
