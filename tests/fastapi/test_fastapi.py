"""The endpoints as FastAPI routes: in the host's own documentation, behind its dependencies, within its lifespan."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from pydantic import BaseModel, Field

from jina_asgi import Context, DefinitionError, Deployment, Executor, requests
from jina_asgi.documents.codec import codec
from jina_asgi.fastapi import include, router
from jina_asgi.protocols.remote.server import HttpRunner
from jina_asgi.testing import ASGITransport, client, events
from jina_asgi.types import Call

HI = {"data": [{"text": "hi"}]}


class Text(BaseModel):
    text: str = Field(description="what is said", max_length=100)


class Options(BaseModel):
    loud: bool = False
    times: int = Field(1, ge=1)


class Tree(BaseModel):
    name: str
    left: Tree | None = None
    right: Tree | None = None


class Speaker(Executor):
    living = 0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        Speaker.living += 1

    def close(self) -> None:
        Speaker.living -= 1

    @requests(on="/say")
    async def say(self, docs: list[Text], parameters: Options) -> list[Text]:
        """Say it.

        As often as `times` says.
        """
        return [Text(text=(doc.text.upper() if parameters.loud else doc.text) * parameters.times) for doc in docs]

    @requests(on="/words")
    async def words(self, doc: Text, parameters: dict[str, Any]) -> AsyncIterator[Text]:
        for word in doc.text.split():
            yield Text(text=word)

    @requests(on="/grow")
    async def grow(self, docs: list[Tree]) -> list[Tree]:
        return docs

    @requests(on="/who")
    async def who(self, docs: list[Text], context: Context) -> list[Text]:
        return [Text(text=f"{context.identity} {context.headers['x-one']}")]


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    include(app, Speaker, prefix="/lm")
    return app


async def test_an_endpoint_answers_under_its_prefix(app) -> None:
    async with client(app) as http:
        answer = await http.post("/lm/say", json={**HI, "parameters": {"loud": True, "times": 2}})
        assert answer.json()["data"] == [{"text": "HIHI"}]
        assert answer.json().keys() == {"data", "parameters", "header"}
        assert (await http.post("/say", json=HI)).status_code == 404


async def test_a_stream_streams_by_get_and_by_post(app) -> None:
    ways: list[tuple[str, Any]] = [("GET", {"params": {"text": "a b"}}), ("POST", {"json": {"data": {"text": "a b"}}})]
    async with client(app) as http:
        for method, request in ways:
            async with http.stream(method, "/lm/words", **request) as response:
                found = [event async for event in events(response)]
            assert [event.data for event in found] == [{"text": "a"}, {"text": "b"}, None]


async def test_errors_are_those_of_a_mounted_application(app) -> None:
    async with client(app) as http:
        assert (await http.post("/lm/say", json={"data": 1})).json()["error"]["type"] == "InvalidDocs"
        assert (await http.post("/lm/say", content=b"{}", headers={"content-type": "text/plain"})).status_code == 415
        assert (await http.get("/lm/say")).status_code == 405
        bad = await http.post("/lm/say", json={**HI, "parameters": {"times": 0}})
        assert bad.json()["detail"][0]["loc"] == ["body", "parameters", "times"]


# Beside the endpoints.


async def test_probes_and_figures_are_there_as_where_it_is_mounted() -> None:
    app = FastAPI()
    include(app, Deployment(Speaker, name="speaker"), prefix="/lm", wait_ready=True)
    async with client(app) as http:
        assert [{}, {"ready": True}] == [(await http.get(f"/lm/-/{path}")).json() for path in ("live", "ready")]
        assert "ready" == (await http.get("/lm/-/status")).json()["deployments"]["speaker"]["state"]
        assert 200 == (await http.head("/lm/-/ready")).status_code
    assert not [path for path in app.openapi()["paths"] if "/-/" in path]


async def test_a_probe_is_answered_that_it_still_loads() -> None:
    gate = threading.Event()

    class Slow(Speaker):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            gate.wait(20.0)

    app = FastAPI()
    include(app, Slow, prefix="/lm")
    async with client(app) as http:
        ready = await http.get("/lm/-/ready")
        gate.set()
    assert (503, "1", "still loading") == (ready.status_code, ready.headers["retry-after"], ready.json()["detail"])


async def test_our_client_finds_the_endpoints_and_asks_them(app) -> None:
    runner = HttpRunner("http://test/lm", transport=ASGITransport(app))
    async with client(app), runner.lifespan():
        assert {"/say", "/words", "/grow", "/who"} == runner.endpoints.keys()
        say = runner.endpoints["/say"]
        result = await runner.call(Call("/say", codec(say.input).docs([{"text": "hi"}]), {"loud": True}, Context("r")))
        assert ["HI"] == [doc["text"] for doc in result.docs.typed]


@pytest.mark.parametrize("path", ["/-/status", "/-/endpoints", "/-/live", "/-/ready"])
async def test_the_hosts_dependencies_guard_all_but_the_probes(path) -> None:
    app = FastAPI()
    include(app, Speaker, prefix="/lm", dependencies=[Depends(known)], wait_ready=True)
    async with client(app) as http:
        answers = [await http.get(f"/lm{path}", headers=headers) for headers in ({}, {"authorization": "Bearer ann"})]
    is_probe = path in ("/-/live", "/-/ready")
    assert [200 if is_probe else 401, 200] == [answer.status_code for answer in answers]


# Dependencies.


async def known(authorization: Annotated[str, Header()] = "") -> None:
    if authorization != "Bearer ann":
        raise HTTPException(401, "who are you?")


async def test_the_hosts_dependencies_guard_every_route() -> None:
    app = FastAPI()
    include(app, Speaker, prefix="/lm", dependencies=[Depends(known)])
    async with client(app) as http:
        for path, methods in app.openapi()["paths"].items():
            for method in methods:
                answer = await http.request(method, path, json=HI)
                assert (answer.status_code, answer.json()) == (401, {"detail": "who are you?"})
        assert (await http.post("/lm/say", json=HI, headers={"authorization": "Bearer ann"})).status_code == 200


async def test_a_dependency_may_read_the_body_first() -> None:
    async def signed(request: Request, x_signature: Annotated[str, Header()]) -> None:
        expected = hmac.new(b"key", await request.body(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected, x_signature):
            raise HTTPException(403)

    app = FastAPI()
    include(app, Speaker, prefix="/lm", dependencies=[Depends(signed)])
    raw = json.dumps(HI).encode()
    headers = {"content-type": "application/json", "x-signature": hmac.new(b"key", raw, hashlib.sha256).hexdigest()}
    async with client(app) as http:
        assert (await http.post("/lm/say", content=raw, headers=headers)).json()["data"] == HI["data"]
        assert (await http.post("/lm/say", content=raw + b" ", headers=headers)).status_code == 403


async def test_a_dependency_with_yield_ends_after_the_stream() -> None:
    happened: list[str] = []

    async def held() -> AsyncIterator[None]:
        happened.append("begun")
        yield
        happened.append("ended")

    app = FastAPI()
    include(app, Speaker, prefix="/lm", dependencies=[Depends(held)])
    async with client(app) as http:
        async with http.stream("POST", "/lm/words", json={"data": {"text": "a " * 50}}) as response:
            found = events(response)
            await anext(found)
            assert happened == ["begun"]  # the stream waits for its reader
            assert [event.name async for event in found][-1] == "end"
    assert happened == ["begun", "ended"]


async def test_auth_of_ours_works_here_too() -> None:
    async def by_token(headers: Any, endpoint: str) -> str | None:
        return {"Bearer ann": "ann"}.get(headers.get("authorization"))

    app = FastAPI()
    include(app, Speaker, prefix="/lm", auth=by_token)
    async with client(app, headers={"x-one": "1"}) as http:
        assert (await http.post("/lm/who", json=HI)).status_code == 401
        answer = await http.post("/lm/who", json=HI, headers={"authorization": "Bearer ann"})
        assert answer.json()["data"] == [{"text": "ann 1"}]


# Lifespans.


async def test_the_executor_lives_within_the_hosts_lifespan() -> None:
    happened: list[tuple[str, int]] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        happened.append(("up", Speaker.living))
        yield {"db": "open"}
        happened.append(("down", Speaker.living))

    app = FastAPI(lifespan=lifespan)
    include(app, Speaker, prefix="/lm", wait_ready=True)

    @app.get("/state")
    async def state(request: Request) -> str:
        return request.state.db

    async with client(app) as http:
        assert Speaker.living == 1
        assert (await http.get("/state")).json() == "open"
    assert (happened[0], Speaker.living) == (("up", 0), 0)


async def test_several_routers_live_and_end_together() -> None:
    class Other(Executor):
        @requests(on="/other")
        async def other(self, docs: DocList[Doc]) -> DocList[Doc]:
            return docs

    app = FastAPI()
    include(app, Deployment(Speaker, name="speaker"), prefix="/a", wait_ready=True)
    include(app, Other, prefix="/b", wait_ready=True)
    outer = APIRouter(prefix="/v1")
    outer.include_router(router(Speaker, wait_ready=True), prefix="/c")
    app.include_router(outer)
    async with client(app) as http:
        assert Speaker.living == 2
        assert (await http.post("/a/say", json=HI)).status_code == 200
        assert (await http.post("/b/other", json={"data": [{"tensor": [1.0]}]})).status_code == 200
        assert (await http.post("/v1/c/say", json=HI)).status_code == 200
    assert Speaker.living == 0


class Doc(BaseDoc):
    tensor: NdArray


# Mistakes.


@pytest.mark.parametrize("prefix", ["", "/", "lm", "/lm/"])
def test_a_prefix_that_is_none_is_refused(prefix) -> None:
    with pytest.raises(DefinitionError, match="expected a prefix such as '/lm'"):
        include(FastAPI(), Speaker, prefix=prefix)


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(DefinitionError, match="did you mean 'wait_ready'"):
        router(Speaker, wait_redy=True)  # type: ignore[call-arg]
