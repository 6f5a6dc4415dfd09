"""Jina's own answers, as in `test_golden_http`, over gRPC: the same documents, parameters and results."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from jina_asgi import Client, Deployment, Flow, GRPCSidecar
from jina_asgi.excepts import BadServer
from tests.compat.test_golden_http import ANSWERS, FLOW_ANSWERS, HI, E, In, normalised, out


@pytest_asyncio.fixture(params=["deployment", "flow"])
async def asked(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A Client, and the answers that a real Jina of that kind gave."""
    served: Any = Deployment(E, name="executor") if request.param == "deployment" else Flow().add(uses=E, name="exec1")
    async with GRPCSidecar(served, "127.0.0.1:0") as sidecar:
        async with Client(port=sidecar.port, asyncio=True) as client:
            yield client, ANSWERS if request.param == "deployment" else FLOW_ANSWERS


async def test_an_answer_is_jinas_own(asked: Any) -> None:
    client, golden = asked
    for path, body, told in golden:
        docs = [In(**doc) for doc in ([body["data"]] if isinstance(body["data"], dict) else body["data"])]
        options = {"parameters": body.get("parameters"), "return_responses": True}
        [said] = [answer.to_dict() async for answer in client.post(path, docs or None, **options)]
        assert told == normalised({"data": said["data"], "parameters": said["parameters"]}), path


async def test_a_stream_is_jinas_own(asked: Any) -> None:
    client, _ = asked
    steps = [doc.__dict__ async for doc in client.stream_doc("/stream", In(text="q"))]
    assert [out(f"q{i}{{}}", i) for i in range(3)] == normalised(steps)


async def test_what_jina_refuses_is_refused_in_the_answer(asked: Any) -> None:
    client, _ = asked
    for path, parameters in (("/typed", {"k": "zz"}), ("/err", None)):
        with pytest.raises(BadServer):
            async for _ in client.post(path, [In(text="hi")], parameters=parameters):
                pass


async def test_over_grpc_an_unknown_endpoint_is_answered_by_the_default(asked: Any) -> None:
    client, _ = asked
    [[doc]] = [docs async for docs in client.post("/nope", [In(**doc) for doc in HI["data"]])]
    assert "D:hi" == doc.text  # over HTTP a 404, Jina's too
