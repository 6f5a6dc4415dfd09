"""An Executor whose code is no good to touch: each caller has a typed error at once, and the next is answered."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import httpx
import pytest

from jina_asgi import Deployment, ExecutorInputError, JinaASGI, JinaASGIError
from jina_asgi.testing import client, websocket
from tests.doubles.bad_manners import ENDPOINTS, ERRORS, LISTS, REFUSALS, VALUES, WALKED, Rude, Word

LONGEST = 8192
AT_ONCE = 10.0  # seconds, on a busy machine


async def answer(http: httpx.AsyncClient, endpoint: str, text: str) -> httpx.Response:
    data = {"text": text} if endpoint.endswith("stream") else [{"text": text}]
    async with asyncio.timeout(AT_ONCE):
        return await http.post(endpoint, json={"data": data})


def outcome_of(answered: httpx.Response) -> tuple[int, bool]:
    """The status of an answer, which a stream tells in its last event, and whether it is short."""
    return answered.status_code, len(answered.content) < LONGEST


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_whatever_an_executor_raises_is_a_short_typed_error(endpoint: str) -> None:
    async with client(JinaASGI(Deployment(Rude))) as http:
        for raised in (*ERRORS, *REFUSALS):
            failed = await answer(http, endpoint, raised)
            calm = await answer(http, endpoint, "calm")
            expected = (422, True) if raised in REFUSALS else (500, True)
            assert (raised, expected, (200, True)) == (raised, outcome_of(failed), outcome_of(calm))
            kind = "ExecutorInputError" if raised in REFUSALS else "ExecutorError"
            assert kind == failed.json()["error"]["type"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_whatever_an_executor_returns_or_yields_that_is_no_document_is_a_short_typed_error(endpoint: str) -> None:
    async with client(JinaASGI(Deployment(Rude))) as http:
        for returned in (*VALUES, *(LISTS if "batch" in endpoint else ())):
            failed = await answer(http, endpoint, returned)
            calm = await answer(http, endpoint, "calm")
            assert (returned, (500, True), (200, True)) == (returned, outcome_of(failed), outcome_of(calm))
            assert "ExecutorError" == failed.json()["error"]["type"]


@pytest.mark.parametrize("endpoint", [endpoint for endpoint in ENDPOINTS if "batch" in endpoint])
@pytest.mark.parametrize("returned", WALKED)
async def test_a_list_of_a_class_of_ones_own_is_walked_as_a_list(endpoint: str, returned: str) -> None:
    async with client(JinaASGI(Deployment(Rude))) as http:
        answered = await answer(http, endpoint, returned)
    assert [{"text": "x"}] == answered.json()["data"]


@pytest.mark.parametrize("endpoint", ["/uncomputed", "/unwritten", "/unwritten_stream", "/unread"])
async def test_documents_that_raise_as_they_are_read_or_written_are_a_short_typed_error(endpoint: str) -> None:
    async with client(JinaASGI(Deployment(Rude))) as http:
        failed = await answer(http, endpoint, "x")
        calm = await answer(http, "/sync_batch", "calm")
    assert (500, True) == outcome_of(failed)
    assert failed.json()["error"]["type"] in ("ExecutorError", "InternalError")
    assert (200, True) == outcome_of(calm)


@pytest.mark.parametrize("text", ["a thing", "x"])
async def test_what_a_validator_objects_to_is_a_short_typed_error(text: str) -> None:
    async with client(JinaASGI(Deployment(Rude))) as http:
        failed = await answer(http, "/objecting", text)
        calm = await answer(http, "/sync_batch", "calm")
    assert failed.status_code in (422, 500)
    assert len(failed.content) < LONGEST
    assert (200, True) == outcome_of(calm)


FEW = ["/async_batch", "/sync_batched", "/sync_stream", "/unwritten", "/unwritten_stream", "/unread"]
NAMED = [(endpoint, text) for endpoint in FEW[:3] for text in (*ERRORS, *REFUSALS, *VALUES)]
ALL = [*NAMED, *((endpoint, "x") for endpoint in FEW[3:])]


async def test_on_a_websocket_each_is_the_short_end_of_its_call_and_the_socket_goes_on() -> None:
    async with websocket(JinaASGI(Deployment(Rude)), "/-/ws") as socket:
        for number, (endpoint, text) in enumerate(ALL):
            data = {"text": text} if endpoint.endswith("stream") else [{"text": text}]
            await socket.send({"id": number, "endpoint": endpoint, "data": data})
            event = await asyncio.wait_for(socket.receive(), AT_ONCE)
            assert (number, text, "error") == (event["id"], text, event["event"])
            assert len(str(event)) < LONGEST


async def test_over_grpc_each_is_a_short_typed_error_and_the_connection_goes_on() -> None:
    with Deployment(Rude, protocol="grpc", port=0, quiet=True) as served:
        async with Deployment(external=True, host="127.0.0.1", port=served.port, protocol="grpc") as remote:
            for endpoint, text in [*NAMED, ("/unread", "x")]:
                with pytest.raises(JinaASGIError) as caught:
                    await asyncio.wait_for(outcome_over(remote, endpoint, text), AT_ONCE)
                assert len(str(caught.value).encode()) < LONGEST
                assert (text in REFUSALS) == isinstance(caught.value, ExecutorInputError)
            assert "calm" == await outcome_over(remote, "/async_batch", "calm")


async def outcome_over(remote: Deployment, endpoint: str, text: str) -> str:
    """The text of the first document of an answer."""
    if not endpoint.endswith("stream"):
        return str((await remote.call(endpoint, [Word(text=text)]))[0].text)
    async with aclosing(remote.stream(endpoint, Word(text=text))) as steps:
        return str((await anext(steps)).text)
