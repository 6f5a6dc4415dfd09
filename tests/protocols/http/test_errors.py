"""What clients are told when something fails, and what only the log is; who may ask at all."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from docarray import BaseDoc, DocList
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from jina_asgi import Context, Executor, ExecutorInputError, JinaASGI, errors, requests
from jina_asgi.documents.msgpack import pack
from jina_asgi.errors import JinaASGIError
from jina_asgi.protocols.problems import problem
from jina_asgi.testing import client

SECRET = "pw=SECRET /home/x 0x7f00deadbeef"
HI = {"data": [{"text": "hi"}]}


class Text(BaseModel):
    text: str


class Doc(BaseDoc):
    text: str


class Failing(Executor):
    """Raises, in each kind of endpoint."""

    @requests
    async def default(self, docs: list[Text]) -> list[Text]:
        raise ValueError(SECRET)

    @requests(on="/sync")
    def sync(self, docs: DocList[Doc]) -> DocList[Doc]:
        raise ValueError(SECRET)

    @requests(on="/one")
    async def one(self, doc: Text) -> Text:
        raise KeyError(SECRET)

    @requests(on="/stream")
    async def stream(self, doc: Text) -> Text:
        raise ValueError(SECRET)
        yield doc

    @requests(on="/stream_later")
    async def stream_later(self, doc: Text) -> Text:
        yield doc
        raise ValueError(SECRET)

    @requests(on="/wrong")
    async def wrong(self, docs: list[Text]) -> list[Text]:
        return [SECRET]  # type: ignore[list-item]  # the mistake that this is about

    @requests(on="/exit")
    def exit_(self, docs: list[Text]) -> list[Text]:
        raise SystemExit(SECRET)

    @requests(on="/cancel")
    async def cancel(self, docs: list[Text]) -> list[Text]:
        raise asyncio.CancelledError(SECRET)

    @requests(on="/refuse")
    async def refuse(self, docs: list[Text]) -> list[Text]:
        raise ExecutorInputError("write less than 100 words")

    @requests(on="/inner")
    async def inner(self, docs: list[Text]) -> list[Text]:
        raise JinaASGIError(SECRET)

    @requests(on="/definition")
    async def definition(self, docs: list[Text]) -> list[Text]:
        raise errors.DefinitionError(SECRET)


FAILING = [
    "/default",
    "/sync",
    "/one",
    "/stream",
    "/stream_later",
    "/wrong",
    "/exit",
    "/cancel",
    "/inner",
    "/definition",
]


def body_of(path: str) -> dict[str, Any]:
    return {"data": {"text": "hi"}} if path.startswith("/stream") else HI


@pytest.mark.parametrize("path", FAILING)
async def test_nothing_of_an_executors_own_error_reaches_a_client(path, caplog) -> None:
    async with client(JinaASGI(Failing)) as http:
        answer = await http.post(path, json=body_of(path))
    for secret in ("SECRET", "/home", "0x7f", "Traceback", "Error(", ".py"):
        assert secret not in answer.text
        assert not any(secret in value for value in answer.headers.values())
    assert answer.status_code == (200 if path == "/stream_later" else 500)


@pytest.mark.parametrize("path", FAILING)
async def test_the_log_has_the_traceback_under_the_id_that_the_client_got(path, caplog) -> None:
    async with client(JinaASGI(Failing)) as http:
        answer = await http.post(path, json=body_of(path))
    (identity,) = re.findall(r'"id":"([0-9a-f]{16})"', answer.text)
    (record,) = [record for record in caplog.records if identity in record.getMessage()]
    assert (record.name, record.levelno) == ("jina_asgi", logging.ERROR)
    assert record.exc_info is not None
    assert SECRET in caplog.text or path == "/wrong"


async def test_expose_errors_reports_an_executors_own_message(caplog) -> None:
    async with client(JinaASGI(Failing, expose_errors=True)) as http:
        assert SECRET in (await http.post("/default", json=HI)).json()["detail"]
        assert SECRET in (await http.post("/stream_later", json={"data": {"text": "hi"}})).text


async def test_a_message_written_for_the_caller_reaches_it(caplog) -> None:
    async with client(JinaASGI(Failing)) as http:
        answer = await http.post("/refuse", json=HI)
    assert (answer.status_code, answer.json()["detail"]) == (422, "write less than 100 words")
    assert "write less" not in caplog.text


async def test_what_is_the_clients_fault_is_not_logged_as_ours(caplog) -> None:
    async with client(JinaASGI(Failing)) as http:
        for content, media in [(b"{", "application/json"), (b'{"data": 1}', "application/json"), (b"x", "text/plain")]:
            await http.post("/default", content=content, headers={"content-type": media})
        await http.get("/nope")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_message_in_the_log_is_one_line_whatever_it_holds(caplog) -> None:
    class Tricky(Executor):
        @requests
        async def default(self, docs: list[Text]) -> list[Text]:
            raise ValueError("a\n2026 ERROR forged\r\x1b[31m\u2028" + "x" * 100_000)

    async with client(JinaASGI(Tricky)) as http:
        await http.post("/default", json=HI)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    message = record.getMessage()
    assert len(message.splitlines()) == 1
    assert message.isprintable()
    assert len(message) < 2100


def all_errors(base: type[JinaASGIError]) -> list[type[JinaASGIError]]:
    return [base, *[found for sub in base.__subclasses__() for found in all_errors(sub)]]


STATUSES = dict(re.findall(r"(\w+) +(\d{3})  ", inspect.getdoc(errors) or ""))


@pytest.mark.parametrize("error", [e for e in all_errors(JinaASGIError) if e.__module__ == errors.__name__])
def test_every_error_is_reported_with_its_own_status_and_in_one_shape(error) -> None:
    made = error(SECRET)
    status, body, headers = problem(made)
    assert str(status) == STATUSES.get(error.__name__, "500")
    assert body.keys() == {"detail", "error"}
    assert body["error"] == {"type": error.__name__, "id": body["error"]["id"], "retriable": error.retriable}
    assert (body["detail"] == SECRET) == (status != 500)
    assert (b"retry-after" in dict(headers)) == (status == 503)
    assert (b"www-authenticate" in dict(headers)) == (status == 401)


def test_the_picture_of_the_errors_names_each_with_its_status() -> None:
    tree = [e for e in all_errors(JinaASGIError) if e.__module__ == errors.__name__ and e is not JinaASGIError]
    assert {e.__name__: str(e.status) for e in tree} == STATUSES


def test_a_defect_of_this_library_is_an_internal_error() -> None:
    status, body, _ = problem(RuntimeError(SECRET), expose=True)
    assert (status, body["error"]["type"]) == (500, "InternalError")
    assert "SECRET" not in body["detail"]


# Who may ask.

#: Every path, and whether it is answered without asking `auth`.
PUBLIC = {
    "/": True,
    "/-/live": True,
    "/-/ready": True,
    "/-/status": False,
    "/-/metrics": False,
    "/-/endpoints": False,
    "/status": False,
    "/dry_run": False,
    "/openapi.json": False,
    "/docs": False,
    "/post": False,
    "/default": False,
    "/stream": False,
    "/who": False,
}


class Guarded(Executor):
    @requests
    async def default(self, docs: list[Text]) -> list[Text]:
        return docs

    @requests(on="/stream")
    async def stream(self, doc: Text) -> Text:
        yield doc

    @requests(on="/who")
    async def who(self, docs: list[Text], context: Context) -> list[Text]:
        return [Text(text=str(context.identity))]


async def nobody(headers: Mapping[str, str], endpoint: str) -> None:
    return None


async def by_token(headers: Mapping[str, str], endpoint: str) -> str | None:
    """`Bearer ann` may ask for everything, `Bearer bob` for all but /who."""
    user = headers.get("authorization", "").removeprefix("Bearer ")
    allowed = user == "ann" or (user == "bob" and endpoint != "/who")
    return user if allowed else None


def test_every_route_is_listed_here_as_public_or_not() -> None:
    assert JinaASGI(Guarded).routes.keys() == PUBLIC.keys()


@pytest.mark.parametrize("path", [*PUBLIC, "/nope", "/-/nope", "/-/../status"])
async def test_nothing_but_the_public_routes_answers_without_a_known_caller(path) -> None:
    async with client(JinaASGI(Guarded, auth=nobody)) as http:
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "TRACE", "X"):
            answer = await http.request(method, f"http://test{path}", content=b"{")
            if PUBLIC.get(path):
                assert answer.status_code in (200, 405, 503)
            else:
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_caller_is_known_before_the_body_is_read() -> None:
    async def body() -> Any:
        raise AssertionError("the body was read")
        yield b""

    async with client(JinaASGI(Guarded, auth=nobody)) as http:
        for path in ("/default", "/stream", "/post"):
            answer = await http.post(path, content=body(), headers={"content-type": "application/json"})
            assert answer.status_code == 401


async def test_the_caller_is_the_identity_in_the_context() -> None:
    async with client(JinaASGI(Guarded, auth=by_token), headers={"authorization": "Bearer ann"}) as http:
        for path, body in [("/who", HI), ("/post", {**HI, "exec_endpoint": "/who"})]:
            answer = await http.post(path, json=body)
            assert answer.json()["data"] == [{"text": "ann"}]


@pytest.mark.parametrize("media", ["application/json", "application/msgpack"])
async def test_post_opens_no_way_around_what_an_endpoint_asks(media) -> None:
    async with client(JinaASGI(Guarded, auth=by_token), headers={"authorization": "Bearer bob"}) as http:
        assert (await http.post("/default", json=HI)).status_code == 200
        assert (await http.post("/who", json=HI)).status_code == 401
        for name in ("/who", "who", "/who/"):
            body = {**HI, "exec_endpoint": name}
            raw = pack(body) if media == "application/msgpack" else httpx.Request("POST", "http://x", json=body).content
            answer = await http.post("/post", content=raw, headers={"content-type": media})
            assert answer.status_code == 401


async def test_auth_may_answer_by_an_http_exception_of_its_own() -> None:
    async def forbid(headers: Mapping[str, str], endpoint: str) -> str:
        raise HTTPException(403, "not yours", headers={"X-Why": "plan"})

    async with client(JinaASGI(Guarded, auth=forbid)) as http:
        for answer in (await http.post("/default", json=HI), await http.get("/status")):
            assert (answer.status_code, answer.json()["detail"], answer.headers["x-why"]) == (403, "not yours", "plan")


async def test_auth_that_fails_lets_no_caller_in_and_reports_nothing(caplog) -> None:
    async def broken(headers: Mapping[str, str], endpoint: str) -> str:
        raise RuntimeError(SECRET)

    async with client(JinaASGI(Guarded, auth=broken)) as http:
        for answer in (await http.post("/default", json=HI), await http.get("/status")):
            assert (answer.status_code, answer.json()["error"]["type"]) == (500, "InternalError")
            assert "SECRET" not in answer.text


async def test_management_reports_nothing_of_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("JINA_ASGI_TEST_TOKEN", SECRET)
    async with client(JinaASGI(Guarded)) as http:
        for path in PUBLIC:
            answer = await http.get(path)
            assert not re.search(r"SECRET|/home|/tmp|pid|hostname|\.sock", answer.text), path
