"""A JinaASGI as a WSGI application, called as servers call it, under the standard library's checker of PEP 3333."""

from __future__ import annotations

import asyncio
import contextvars
import io
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from pydantic import BaseModel

from jina_asgi import Context, Executor, JinaASGI, Limits, requests
from jina_asgi.concurrency.loops import loop_thread
from jina_asgi.serving.wsgi import WsgiApp

SOON = 10.0
caller: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="nobody")


class Text(BaseModel):
    text: str = ""


class Model(Executor):
    made = 0
    step, closed = threading.Event(), threading.Event()

    @requests(on="/echo")
    async def echo(self, docs: list[Text]) -> list[Text]:
        return docs

    @requests(on="/asked")
    async def asked(self, docs: list[Text], context: Context) -> list[Text]:
        return [Text(text=f"{caller.get()} {context.headers['x-note']} {context.identity}")]

    @requests(on="/wait")
    async def wait(self, docs: list[Text]) -> list[Text]:
        await asyncio.Event().wait()
        return docs

    @requests(on="/steps")
    def steps(self, doc: Text) -> Iterator[Text]:
        """One document, and the next when the test has seen it."""
        yield doc
        assert Model.step.wait(SOON)
        yield doc

    @requests(on="/forever")
    async def forever(self, doc: Text) -> AsyncIterator[Text]:
        Model.made = 0
        try:
            while True:
                yield doc
                Model.made += 1
        finally:
            Model.closed.set()

    @requests(on="/quiet")
    async def quiet(self, doc: Text) -> AsyncIterator[Text]:
        """One document, then nothing until it is closed."""
        try:
            yield doc
            await asyncio.Event().wait()
        finally:
            Model.closed.set()

    @requests(on="/fails")
    async def fails(self, doc: Text) -> AsyncIterator[Text]:
        yield doc
        raise RuntimeError("SECRET")


class Open:
    """What a server gets from one call, and iterates."""

    def __init__(self, app: Any, environ: dict[str, Any]) -> None:
        self._body = validator(app)(environ, self._start)
        self._parts = iter(self._body)

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        self.status, self.headers = status, dict(headers)
        return print  # which nobody calls

    def __next__(self) -> bytes:
        return next(self._parts)

    def rest(self) -> bytes:
        try:
            return b"".join(self._parts)
        finally:
            self.close()

    def close(self) -> None:
        self._body.close()  # type: ignore[attr-defined]


class Answer(Open):
    """What it gets, read to its end."""

    def __init__(self, app: Any, environ: dict[str, Any]) -> None:
        super().__init__(app, environ)
        self.body = self.rest()

    def json(self) -> Any:
        return json.loads(self.body)


def environ(method: str, path: str, data: bytes = b"", **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": ""}
    setup_testing_defaults(made)
    made |= {"wsgi.input": io.BytesIO(data), "SERVER_PROTOCOL": "HTTP/1.1", "CONTENT_TYPE": "application/json"}
    return made | ({"CONTENT_LENGTH": str(len(data))} if data else {}) | more


def post(path: str, data: Any, **more: Any) -> dict[str, Any]:
    return environ("POST", path, json.dumps({"data": data}).encode(), **more)


@pytest.fixture(scope="module")
def asgi() -> Iterator[JinaASGI]:
    made = JinaASGI(Model, limits=Limits(body=200_000))
    yield made
    made.service.close()


@pytest.fixture(autouse=True)
def anew() -> None:
    Model.step.clear()
    Model.closed.clear()


def test_the_object_itself_and_its_wsgi_answer_alike(asgi: JinaASGI) -> None:
    for app in (asgi, asgi.wsgi):
        answer = Answer(app, post("/echo", [{"text": "hi"}]))
        assert ["200 OK", "application/json"] == [answer.status, answer.headers["content-type"]]
        assert [{"text": "hi"}] == answer.json()["data"]


def test_it_is_asgi_to_who_looks(asgi: JinaASGI) -> None:
    """As uvicorn, hypercorn, Starlette and asgiref look at an object to learn what it speaks."""
    import inspect

    from asgiref.compatibility import is_double_callable
    from hypercorn.utils import is_asgi
    from starlette._utils import is_async_callable
    from uvicorn import Config

    config = Config(asgi)
    config.load()
    assert "asgi3" == config.interface
    assert is_asgi(asgi)
    assert is_async_callable(asgi)
    assert not is_double_callable(asgi)
    assert inspect.iscoroutinefunction(asgi.__call__)


def test_what_the_caller_has_goes_with_the_call(asgi: JinaASGI) -> None:
    """Context variables, headers, and whom the host's own authentication named."""
    caller.set("me")
    said = Answer(asgi, post("/asked", [{}], HTTP_X_NOTE="ñ", REMOTE_USER="ann")).json()["data"][0]["text"]
    assert "me ñ ann" == said


@pytest.mark.parametrize(("script", "path"), [("", "/echo"), ("/lm", "/echo"), ("/a/lm/", "/echo"), ("/echo", "/echo")])
def test_a_prefix_is_no_part_of_the_path(asgi: JinaASGI, script: str, path: str) -> None:
    assert "200 OK" == Answer(asgi, post(path, [{}], SCRIPT_NAME=script)).status


def test_the_bare_prefix_is_the_root(asgi: JinaASGI) -> None:
    assert "200 OK" == Answer(asgi, environ("GET", "", SCRIPT_NAME="/lm")).status


def test_the_openapi_document_knows_the_prefix(asgi: JinaASGI) -> None:
    found = Answer(asgi, environ("GET", "/openapi.json", SCRIPT_NAME="/l\xc3\xb1")).json()
    assert [{"url": "/lñ"}] == found["servers"]


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (environ("GET", "/nothing"), "404 Not Found"),
        (environ("GET", "/echo"), "405 Method Not Allowed"),
        (post("/echo", [{"text": 1}]), "422 Unprocessable"),
        (environ("POST", "/echo", b"{"), "400 Bad Request"),
        (post("/echo", [{}], CONTENT_LENGTH="9" * 30), "400 Bad Request"),
        (post("/echo", [{"text": "x" * 200_000}]), "413 "),
        (post("/echo", [{"text": "x" * 200_000}], CONTENT_LENGTH="", **{"wsgi.input_terminated": True}), "413 "),
        (post("/wait", [{}], HTTP_X_REQUEST_TIMEOUT="0.05"), "504 Gateway Timeout"),
        (post("/echo", [{}], CONTENT_LENGTH="", HTTP_TRANSFER_ENCODING="chunked"), "411 Length Required"),
        (environ("GET", "/-/ws", HTTP_UPGRADE="websocket"), "400 Bad Request"),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else value["PATH_INFO"],
)
def test_refusals_are_those_of_http(asgi: JinaASGI, asked: dict[str, Any], status: str) -> None:
    asked["wsgi.input"].seek(0)
    answer = Answer(asgi, asked)
    assert answer.status.startswith(status)
    assert {"type", "id", "retriable"} == answer.json()["error"].keys()


def test_a_body_that_is_refused_by_its_length_is_not_read(asgi: JinaASGI) -> None:
    asked = post("/echo", [{"text": "x" * 300_000}])
    body = asked["wsgi.input"]
    assert Answer(asgi, asked).status.startswith("413")
    assert 0 == body.tell()


def test_a_chunked_body_is_read_to_its_end(asgi: JinaASGI) -> None:
    asked = post("/echo", [{"text": "x" * 100_000}], CONTENT_LENGTH="", **{"wsgi.input_terminated": True})
    assert "x" * 100_000 == Answer(asgi, asked).json()["data"][0]["text"]


def test_a_body_that_ends_before_its_length_starts_nothing(asgi: JinaASGI) -> None:
    assert "499 Unknown" == Answer(asgi, post("/echo", [{}], CONTENT_LENGTH="100")).status


def test_a_body_that_cannot_be_read_is_the_servers_to_report(asgi: JinaASGI) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise ConnectionResetError("the client left")

    with pytest.raises(ConnectionResetError):
        Answer(asgi, post("/echo", [{}], **{"wsgi.input": Broken()}))


def test_head_has_the_headers_alone(asgi: JinaASGI) -> None:
    answer = Answer(asgi, environ("HEAD", "/-/live"))
    assert ["200 OK", "2", b""] == [answer.status, answer.headers["content-length"], answer.body]


def test_events_come_one_at_a_time_as_they_are_made(asgi: JinaASGI) -> None:
    answer = Open(asgi, post("/steps", {"text": "hi"}))
    first = next(answer)
    Model.step.set()
    assert [b'event: update\r\ndata: {"text":"hi"}\r\n\r\n'] * 2 == [first, next(answer)]
    assert b"event: end\r\ndata: null\r\n\r\n" == answer.rest()


@pytest.mark.parametrize("path", ["/forever", "/quiet"])
def test_closing_the_answer_closes_the_generator(asgi: JinaASGI, path: str) -> None:
    answer = Open(asgi, post(path, {"text": "hi"}))
    assert next(answer)
    answer.close()
    assert Model.closed.wait(SOON)


def test_a_generator_waits_for_a_server_that_is_slow(asgi: JinaASGI) -> None:
    """At most 64 KB, and one document, are made ahead of what is taken."""
    answer = Open(asgi, post("/forever", {"text": "x" * 1000}))
    taken = 0

    def rests() -> int:
        """How many documents are made by the time that the loop has nothing left to do."""
        made = -1
        while made != Model.made:
            made = Model.made
            Answer(asgi, post("/echo", [{}]))
        return made

    for _ in range(3):
        assert 30 <= rests() - taken <= 70
        taken += len([next(answer) for _ in range(200)])
    answer.close()
    assert Model.closed.wait(SOON)


def test_an_error_within_a_stream_is_its_last_event(asgi: JinaASGI) -> None:
    told = Answer(asgi, post("/fails", {"text": "hi"})).body
    assert b"event: error" in told
    assert b"SECRET" not in told


def test_what_an_application_raises_is_raised_to_the_server() -> None:
    async def early(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("early")

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise KeyError("late")

    async def never(scope: Any, receive: Any, send: Any) -> None:
        pass

    with pytest.raises(KeyError, match="early"):
        Answer(WsgiApp(early), environ("GET", "/"))
    answer = Open(WsgiApp(late), environ("GET", "/"))
    assert b"x" == next(answer)
    with pytest.raises(KeyError, match="late"):
        next(answer)
    answer.close()
    with pytest.raises(RuntimeError, match="without a whole response"):
        Answer(WsgiApp(never), environ("GET", "/"))


def test_what_an_application_sends_to_who_left_is_an_os_error() -> None:
    told: list[Any] = []
    over = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        told.append((await receive())["type"])  # the empty body
        told.append((await receive())["type"])
        try:
            await send({"type": "http.response.body", "body": b"y", "more_body": True})
        except OSError as error:
            told.append(type(error))
        over.set()

    answer = Open(WsgiApp(app), environ("GET", "/"))
    assert b"x" == next(answer)
    answer.close()
    assert over.wait(SOON)
    assert ["http.request", "http.disconnect", BrokenPipeError] == told


def test_a_call_from_the_loop_that_answers_is_refused(asgi: JinaASGI) -> None:
    async def ask() -> None:
        Answer(asgi, environ("GET", "/-/live"))

    with pytest.raises(RuntimeError, match="another thread"):
        loop_thread("loop").begin(ask()).result(SOON)


def test_many_threads_are_answered_beside_each_other(asgi: JinaASGI) -> None:
    answers: list[str] = []

    def ask(number: int) -> None:
        for _ in range(20):
            answers.append(Answer(asgi, post("/echo", [{"text": str(number)}])).json()["data"][0]["text"])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(str(number) for number in range(8) for _ in range(20)) == sorted(answers)


@pytest.mark.processes
def test_a_process_that_was_forked_after_the_first_call_says_so() -> None:
    """No thread survives a fork: instead of waiting for one for good, it answers 503, and the log says why."""
    asgi = JinaASGI(Model)
    assert "200 OK" == Answer(asgi, post("/echo", [{}])).status
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            status = Answer(asgi, post("/echo", [{}])).status
            ready = Answer(asgi, environ("GET", "/-/ready")).json()["detail"]
            os.write(writing, f"{status} {ready}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        said = told.read()
    os.waitpid(child, 0)
    asgi.service.close()
    assert said.startswith("503 Service Unavailable failed to load (RuntimeError)")


def test_a_coroutine_that_asks_to_end_the_process_ends_no_other_request(asgi: JinaASGI) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        loop_thread("loop").begin(leave()).result(SOON)
    assert "200 OK" == Answer(asgi, post("/echo", [{}])).status
