"""The synchronous Client, against a real server but where it says otherwise."""

from __future__ import annotations

import asyncio
import io
import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from docarray import BaseDoc, DocList
from starlette.applications import Starlette

from jina_asgi import Client, Deployment, JinaASGI, mount
from jina_asgi.clients.posts import Progress
from jina_asgi.clients.responses import Header, Response, Status
from jina_asgi.errors import DefinitionError, ExecutorInputError, NotReady, ReplicaDied, UnknownEndpoint
from jina_asgi.excepts import BadClient, BadClientCallback, BadClientInput, BadServer
from jina_asgi.testing.executors import NoDefault
from tests.doubles.clients import Failing, Model, Options, Text
from tests.doubles.uvicorn_server import Serving, free_port

TEXTS = DocList[Text]
AB = [Text(id="1", text="a"), Text(id="2", text="b")]


def application() -> JinaASGI:
    return JinaASGI(Model, wait_ready=True)


@pytest.fixture
def served() -> Iterator[Serving]:
    with Serving(application()) as served:
        yield served


@pytest.fixture
def client(served: Serving) -> Iterator[Any]:
    with Client(port=served.port, protocol="http") as client:
        yield client


def numbers(count: int) -> Iterator[Text]:
    return (Text(text=str(index)) for index in range(count))


def test_documents_go_out_and_come_back_in_the_type_that_is_asked_for(client: Any) -> None:
    answered = client.post("/upper", AB, parameters={"end": "!"}, return_type=TEXTS)
    assert isinstance(answered, DocList)
    assert answered.doc_type is Text
    assert [("1", "A!"), ("2", "B!")] == [(doc.id, doc.text) for doc in answered]


def test_one_document_answers_for_one_where_a_class_is_asked_for(client: Any) -> None:
    one = client.post("/upper", AB[0], return_type=Text)
    assert (Text, "A") == (type(one), one.text)
    assert ["A", "B"] == [doc.text for doc in client.post("/upper", AB, return_type=Text)]


def test_without_a_type_documents_have_the_fields_that_came(client: Any) -> None:
    answered = client.post("/upper", AB)
    assert isinstance(answered, DocList)
    assert ["A", "B"] == [doc.text for doc in answered]


def test_no_inputs_are_a_request_without_documents(client: Any) -> None:
    [response] = client.post("/index", return_responses=True)
    assert {"executor/rep-0": {"n": 0}} == response.parameters["__results__"]


def test_jinas_short_names_are_posts(client: Any) -> None:
    [response] = client.index(AB, return_responses=True)
    assert {"executor/rep-0": {"n": 2}} == response.parameters["__results__"]
    assert ["default a"] == [doc.text for doc in client.search(AB[0])]


def test_parameters_may_be_a_model(client: Any) -> None:
    assert "A?" == client.post("/upper", AB[0], parameters=Options(end="?"), return_type=Text).text


def test_an_endpoint_that_is_none_goes_to_default(client: Any) -> None:
    for on in ("/", "/default", "/nowhere", "nowhere"):
        assert "default a" == client.post(on, AB[0], return_type=Text).text


def test_inputs_are_sent_in_requests_of_their_size(client: Any) -> None:
    sizes = [len(r.docs) for r in client.post("/upper", numbers(25), request_size=10, return_responses=True)]
    assert [5, 10, 10] == sorted(sizes)


def test_answers_come_in_order_where_that_is_asked(client: Any) -> None:
    docs = [Text(text="first"), *numbers(5), Text(text="last")]
    ordered = client.post("/first_last", docs, request_size=1, results_in_order=True, return_type=TEXTS)
    assert [doc.text for doc in docs] == [doc.text for doc in ordered]


def test_answers_come_as_they_are_ready_where_it_is_not(client: Any) -> None:
    docs = [Text(text="first"), *numbers(5), Text(text="last")]
    assert "first" == client.post("/first_last", docs, request_size=1, return_type=TEXTS)[-1].text


@pytest.mark.parametrize("in_order", [True, False])
def test_inputs_are_read_no_further_than_the_requests_that_may_be_open(client: Any, in_order: bool) -> None:
    ahead: list[int] = []
    done: list[Any] = []

    def recorded() -> Iterator[Text]:
        for index in range(30):
            ahead.append(index + 1 - len(done))
            yield Text(text=str(index))

    client.post("/upper", recorded(), done.append, request_size=1, prefetch=3, results_in_order=in_order)
    assert 30 == len(done)
    assert max(ahead) <= 3


def test_threads_that_share_a_client_do_not_wait_for_each_other(client: Any) -> None:
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(client.post, "/meet", AB[0], parameters={"parties": 4}) for _ in range(4)]
        assert [1] * 4 == [len(future.result(30)) for future in asked]


def test_requests_of_one_call_run_beside_each_other(client: Any) -> None:
    assert 6 == len(client.post("/meet", numbers(6), parameters={"parties": 6}, request_size=1))


async def test_a_client_works_where_an_event_loop_runs_as_in_a_notebook(client: Any) -> None:
    assert asyncio.get_running_loop().is_running()
    assert "A" == client.post("/upper", AB[0], return_type=Text).text


@pytest.mark.processes
@pytest.mark.parametrize("method", ["post", "stream_doc"])
def test_a_client_that_was_used_works_in_a_process_that_is_forked(client: Any, method: str) -> None:
    client.post("/upper", AB[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads: what this is about
        pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if list(getattr(client, method)("/upper" if method == "post" else "/count", AB[0])) else 1)
        finally:
            os._exit(2)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_callbacks_take_the_answers_in_the_callers_thread(client: Any) -> None:
    took: list[tuple[str, str, bool]] = []

    def taker(name: str) -> Any:
        return lambda r: took.append((name, r.docs[0].text, threading.current_thread() is threading.main_thread()))

    returned = client.post("/odd_fails", numbers(2), taker("done"), taker("error"), taker("always"), request_size=1)
    assert returned is None
    assert [("always", "0", True), ("always", "1", True), ("done", "0", True), ("error", "1", True)] == sorted(took)


def test_on_error_alone_leaves_the_answers_to_the_caller(client: Any) -> None:
    failed: list[Any] = []
    answered = client.post("/odd_fails", numbers(4), on_error=failed.append, request_size=1, return_type=TEXTS)
    assert {"0", "2"} == {doc.text for doc in answered}
    assert {"1 is odd", "3 is odd"} == {str(response.error) for response in failed}
    assert {1} == {response.status.code for response in failed}
    assert {"ExecutorInputError"} == {response.header.status.exception.name for response in failed}


def test_a_callback_that_raises_is_named(client: Any) -> None:
    def broken(response: Any) -> None:
        raise KeyError("mine")

    with pytest.raises(BadClientCallback, match=r"broken\(\) raised KeyError") as raised:
        client.post("/upper", AB, broken)
    assert isinstance(raised.value.__cause__, KeyError)


def test_with_continue_on_error_what_fails_is_logged_and_the_rest_goes_on(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(response: Any) -> None:
        raise KeyError("mine")

    options = {"continue_on_error": True, "request_size": 1}
    assert {"0", "2"} == {d.text for d in client.post("/odd_fails", numbers(4), **options, return_type=TEXTS)}
    assert "1 is odd" in caplog.text
    assert client.post("/upper", numbers(2), on_done=broken, **options) is None
    assert 2 == caplog.text.count("the callback broken() raised")
    statuses = [r.status.code for r in client.post("/odd_fails", numbers(4), **options, return_responses=True)]
    assert [0, 0, 1, 1] == sorted(statuses)


def test_a_servers_error_is_jinas_with_ours_as_its_cause(client: Any) -> None:
    with pytest.raises(BadServer, match="1 is odd") as raised:
        client.post("/odd_fails", Text(text="1"))
    assert isinstance(raised.value.__cause__, ExecutorInputError)
    assert (1, "/odd_fails") == (raised.value.header.status.code, raised.value.header.exec_endpoint)


def test_an_endpoint_that_is_not_there_is_the_clients_fault() -> None:
    with Serving(JinaASGI(NoDefault, wait_ready=True)) as served, Client(served.url) as client:
        with pytest.raises(BadClient, match=r"no such endpoint /upper: .*; it has /only"):
            client.post("/upper", AB)
        assert 2 == len(client.post("/only", AB))


def test_a_server_that_is_not_there_is_a_connection_error() -> None:
    with Client(port=free_port(), protocol="http") as client:
        assert not client.is_flow_ready()
        with pytest.raises(ConnectionError, match="cannot connect") as raised:
            client.post("/upper", AB)
    assert isinstance(raised.value.__cause__, NotReady)


def test_a_timeout_is_for_each_request_and_reaches_the_server(client: Any) -> None:
    facts = client.post("/facts", AB[0], timeout=60, return_type=TEXTS)
    assert "True" == facts[-1].text
    with pytest.raises(ConnectionError, match="deadline"):
        client.post("/wait", AB[0], timeout=0.1)


def test_headers_metadata_credentials_and_cookies_are_sent(client: Any) -> None:
    options = {"auth": ("me", "secret"), "cookies": {"a": "1", "b": "2"}}
    for mine in ({"headers": {"X-Mine": "x"}}, {"metadata": (("x-mine", "x"),)}):
        facts = client.post("/facts", AB[0], **mine, **options, return_type=TEXTS)
        assert ["x", "Basic bWU6c2VjcmV0", "a=1; b=2", "False"] == [fact.text for fact in facts]


def test_the_clients_own_headers_go_with_every_request(served: Serving) -> None:
    with Client(served.url, headers={"x-mine": "every"}) as client:
        assert "every" == client.post("/facts", AB[0], return_type=TEXTS)[0].text


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_request_is_sent_again_while_the_server_says_that_nothing_ran(attempts: int) -> None:
    asgi = application()
    failing = Failing(asgi, "Overloaded", "NotReady")
    with Serving(failing) as served, Client(served.url) as client:
        if attempts == 1:
            with pytest.raises(ConnectionError, match="not now"):
                client.post("/upper", AB)
        else:
            assert 2 == len(client.post("/upper", AB, max_attempts=attempts, initial_backoff=0.001, max_backoff=0.01))
    assert attempts == failing.posts


@pytest.mark.parametrize(("on", "posts"), [("/upper", 2), ("/default", 1)])
def test_what_may_have_run_is_sent_again_only_where_the_endpoint_is_idempotent(on: str, posts: int) -> None:
    failing = Failing(application(), "ReplicaDied")
    with Serving(failing) as served, Client(served.url) as client:
        failed: list[Any] = []
        client.post(on, AB, max_attempts=5, initial_backoff=0.001, on_error=failed.append)
    assert [ReplicaDied] * (2 - posts) == [type(response.error) for response in failed]
    assert posts == failing.posts


def test_a_server_that_starts_late_is_waited_for() -> None:
    port = free_port()
    with ThreadPoolExecutor(1) as thread, Client(port=port, protocol="http") as client:
        with pytest.raises(ConnectionError):
            client.post("/upper", AB)
        late = thread.submit(client.post, "/upper", AB, max_attempts=1000, initial_backoff=0.01, max_backoff=0.05)
        with Serving(application(), port=port):
            assert 2 == len(late.result(30))


def test_a_stream_gives_documents_as_they_come_and_takes_parameters(client: Any) -> None:
    docs = client.stream_doc("/count", AB[0], {"n": 4}, return_type=Text)
    assert "a0" == next(docs).text
    assert ["a1", "a2", "a3"] == [doc.text for doc in docs]


def test_closing_a_stream_stops_the_servers_work(client: Any) -> None:
    docs = client.stream_doc("/count", AB[0], {"n": 1_000_000}, return_type=Text)
    next(docs)
    docs.close()
    assert int(client.post("/closed", AB[0], return_type=Text).text) < 999_999


def test_an_error_in_a_stream_comes_after_its_documents(client: Any) -> None:
    docs = client.stream_doc("/count", AB[0], {"fail_at": 1})
    assert "a0" == next(docs).text
    with pytest.raises(BadServer, match="enough"):
        next(docs)


async def later(response: Any) -> None: ...


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda c: c.post("/count", AB[0]), "stream_doc"),
        (lambda c: next(c.stream_doc("/upper", AB[0])), "ask it with post"),
        (lambda c: c.stream_doc("/count", AB), "one document"),
        (lambda c: c.post("/upper", "text"), "expected a document"),
        (lambda c: c.post("/a b", AB), "expected an endpoint"),
        (lambda c: c.post("/upper", AB, parameters=[1]), "a dict or a pydantic model"),
        (lambda c: c.post("/upper", AB, return_type=str), "return_type"),
        (lambda c: c.post("/upper", AB, prefetch=0), "prefetch=0"),
        (lambda c: c.check_input(["x"]), "expected documents"),
        (lambda c: c.post("/upper", AB, on_done=later), "on_done is async"),
        (lambda c: c.post("/upper", AB, on_error=later), "on_error is async"),
        (lambda c: c.post("/upper", AB, on_always=later), "on_always is async"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused_and_says_what_does(client: Any, ask: Any, message: str) -> None:
    with pytest.raises(BadClientInput, match=message):
        ask(client)


def test_an_option_that_http_knows_nothing_of_is_refused_by_name(client: Any) -> None:
    with pytest.raises(TypeError, match="compression"):
        client.post("/upper", AB, compression="gzip")


def test_an_answer_that_does_not_fit_the_type_says_where(client: Any) -> None:
    class Other(BaseDoc):
        number: int

    with pytest.raises(BadClient, match=r"return_type \(Other\): 0.number: Field required"):
        client.post("/upper", AB, return_type=DocList[Other])


def test_a_response_has_jinas_fields_and_is_plain_data_when_asked(client: Any) -> None:
    [response] = client.post("/upper", AB[0], return_responses=True, target_executor="x.*", return_type=TEXTS)
    assert (response.docs, response.status) == (response.data, response.header.status)
    assert {
        "header": {
            "request_id": response.header.request_id,
            "status": {
                "code": 0,
                "description": "",
                "exception": {"name": "", "args": [], "stacks": [], "executor": ""},
            },
            "exec_endpoint": "/upper",
            "target_executor": "x.*",
        },
        "parameters": {},
        "routes": [],
        "data": [{"id": "1", "text": "A"}],
    } == response.to_dict()
    [anything] = client.post("/upper", AB[0], return_responses=True)
    assert "A" == anything.to_dict()["data"][0]["text"]


def test_the_executors_that_are_to_work_are_named_in_the_header() -> None:
    seen: list[Any] = []

    class Watching(JinaASGI):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # type: ignore[override]  # no WSGI
            async def watched() -> Any:
                message = await receive()
                seen.append(message.get("body", b""))
                return message

            await super().__call__(scope, watched, send)

    with Serving(Watching(Model, wait_ready=True)) as served, Client(served.url) as client:
        client.post("/upper", AB[0], target_executor="lm")
    assert any(b"target_executor\xa2lm" in body for body in seen)


def test_a_client_reaches_an_application_behind_a_prefix() -> None:
    app = Starlette()
    mount(app, "/lm", Deployment(Model), wait_ready=True)
    with Serving(app) as served:
        with Client(f"{served.url}/lm") as client:
            assert client.is_flow_ready()
            assert "A" == client.post("/upper", AB[0], return_type=Text).text
            assert 3 == len(list(client.stream_doc("/count", AB[0])))
        with Client(served.url) as client, pytest.raises(BadClient) as raised:
            client.post("/upper", AB[0])
        assert isinstance(raised.value.__cause__, UnknownEndpoint)


def test_an_application_in_this_process_is_asked_without_a_server() -> None:
    app = Starlette()
    asgi = mount(app, "/lm", Deployment(Model))
    try:
        with Client("http://app/lm", app=app) as client:
            assert "A" == client.post("/upper", AB[0], return_type=Text).text
            assert 3 == len(list(client.stream_doc("/count", AB[0])))
    finally:
        asgi.service.close()


def test_a_closed_client_opens_again(client: Any) -> None:
    for _ in range(2):
        assert 2 == len(client.post("/upper", AB))
        client.close()
    client.close()


def test_grpc_is_the_default_and_a_scheme_goes_before_it() -> None:
    assert "grpc" == Client(port=1).address.protocol
    assert "grpc" == Client("grpc://models:1", protocol="http").address.protocol
    assert "http" == Client("http://models:1").address.protocol


def test_an_option_that_is_none_is_named_with_the_nearest() -> None:
    with pytest.raises(DefinitionError, match="did you mean 'headers'"):
        Client("http://models", header={})  # type: ignore[call-overload]
    with pytest.raises(BadClientInput, match="prefetch=0"):
        Client("http://models", prefetch=0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_counts_on_one_line_of_a_terminal_and_once_elsewhere() -> None:
    header = Header("id", Status())
    shown, written, hidden = Terminal(), io.StringIO(), io.StringIO()
    for stream, is_shown in ((shown, True), (written, True), (hidden, False)):
        with Progress(shown=is_shown, stream=stream, clock=iter([0.0, *[1.5] * 9]).__next__) as progress:
            progress.count(Response(["doc"] * 10, {}, header, []))
            progress.count(Response(["doc"] * 5, {}, header, [], NotReady("loading")))
    last = "2 requests, 1 failed, 10 documents, 1.5 s\n"
    assert f"\r1 requests, 10 documents, 1.5 s\r{last[:-1]}\r{last}" == shown.getvalue()
    assert (last, "") == (written.getvalue(), hidden.getvalue())


def test_a_call_may_show_its_progress(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    client.post("/upper", numbers(3), request_size=1, show_progress=True)
    assert "3 requests, 3 documents" in capsys.readouterr().err
