"""The user that a FastAPI host's own dependency or middleware finds is the Executor's `context.identity`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection

from jina_asgi import Context, DefinitionError, Executor, requests
from jina_asgi.fastapi import include
from jina_asgi.testing import SocketRefused, client, websocket

ANN = {"authorization": "Bearer ann"}


class Text(BaseModel):
    text: str = ""


class User(BaseModel):
    name: str


class Who(Executor):
    @requests(on="/who")
    async def who(self, docs: list[Text], context: Context) -> list[Text]:
        return [Text(text=repr(context.identity)) for _ in docs]

    @requests(on="/often")
    async def often(self, doc: Text, context: Context) -> AsyncIterator[Text]:
        yield Text(text=repr(context.identity))


async def current_user(authorization: Annotated[str, Header()] = "") -> User:
    scheme, _, name = authorization.partition(" ")
    if scheme != "Bearer":
        raise HTTPException(401, "who are you?", {"www-authenticate": "Bearer"})
    return User(name=name)


def by_bearer(credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> User:
    return User(name=credentials.credentials)


async def guarded(connection: HTTPConnection) -> None:
    connection.state.user = await current_user(connection.headers.get("authorization", ""))


def user_of_state(connection: HTTPConnection) -> Any:
    return connection.state.user


def app_of(**options: Any) -> FastAPI:
    app = FastAPI()
    include(app, Who, prefix="/lm", **options)
    return app


WAYS: dict[str, dict[str, Any]] = {
    "a function that returns the user": {"identity": current_user},
    "Depends": {"identity": Depends(current_user)},
    "request.state, set by a guard": {"dependencies": [Depends(guarded)], "identity": user_of_state},
}


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
async def test_the_user_that_a_dependency_found_is_the_identity_on_every_route(options: Any) -> None:
    app = app_of(**options)
    async with client(app, headers=ANN) as http:
        answered = await http.post("/lm/who", json={"data": [{}]})
        streams = [await http.get("/lm/often"), await http.post("/lm/often", json={"data": {}})]
    async with websocket(app, "/lm/-/ws", headers=ANN) as socket:
        await socket.send({"id": 1, "endpoint": "/who", "data": [{}]})
        heard = await socket.receive()
    assert "User(name='ann')" == answered.json()["data"][0]["text"]
    assert all("User(name='ann')" in stream.text for stream in streams)
    assert "User(name='ann')" in str(heard)


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
async def test_what_the_dependency_raises_is_the_answer(options: Any) -> None:
    app = app_of(**options)
    async with client(app) as http:
        for method, path in (("POST", "/lm/who"), ("POST", "/lm/often"), ("GET", "/lm/often")):
            answer = await http.request(method, path, json={"data": {}})
            assert (401, {"detail": "who are you?"}, "Bearer") == (
                answer.status_code,
                answer.json(),
                answer.headers["www-authenticate"],
            )
    with pytest.raises(SocketRefused):
        async with websocket(app, "/lm/-/ws"):
            pass


async def test_a_dependency_runs_once_a_request_also_where_it_guards_and_reports_the_user() -> None:
    ran = []

    async def counted(request: Request) -> str:
        ran.append(request.url.path)
        return "ann"

    async with client(app_of(dependencies=[Depends(counted)], identity=counted)) as http:
        assert "'ann'" == (await http.post("/lm/who", json={"data": [{}]})).json()["data"][0]["text"]
    assert ["/lm/who"] == ran


async def test_a_security_scheme_is_in_the_documentation_and_its_user_the_identity() -> None:
    app = app_of(identity=Security(by_bearer))
    assert [{"HTTPBearer": []}] == app.openapi()["paths"]["/lm/who"]["post"]["security"]
    async with client(app, headers=ANN) as http:
        assert "User(name='ann')" == (await http.post("/lm/who", json={"data": [{}]})).json()["data"][0]["text"]


async def test_the_user_that_a_middleware_found_is_the_identity() -> None:
    class Backend(AuthenticationBackend):
        async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser]:
            return AuthCredentials(), SimpleUser("ann")

    app = app_of()
    app.add_middleware(AuthenticationMiddleware, backend=Backend())
    async with client(app) as http:
        assert "SimpleUser" in (await http.post("/lm/who", json={"data": [{}]})).json()["data"][0]["text"]


async def test_a_dependency_that_answers_none_leaves_the_identity_none() -> None:
    async with client(app_of(identity=lambda: None)) as http:
        assert "None" == (await http.post("/lm/who", json={"data": [{}]})).json()["data"][0]["text"]


def test_auth_and_identity_exclude_each_other() -> None:
    async def auth(headers: Any, endpoint: str) -> str:
        return "ann"

    with pytest.raises(DefinitionError, match="expected one of them"):
        app_of(auth=auth, identity=current_user)
