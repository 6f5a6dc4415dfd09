"""Every host on every server, as the tables of docs/hosts.md say; its rows are the parameters here."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.doubles.rig import ROOT
from tests.hosts.conftest import COMMANDS, Running

pytestmark = pytest.mark.processes

EXAMPLES = ROOT / "examples" / "hosts"


def table(heading: str) -> dict[str, dict[str, str]]:
    """A table of docs/hosts.md: its rows by their first cell, each a mapping of column to cell."""
    text = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8").partition(f"## {heading}\n")[2]
    lines = itertools.takewhile(lambda line: line.startswith("|"), text[text.index("|") :].splitlines())
    head, _, *rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


HOSTS, SERVERS = table("Hosts"), table("Servers")
NAMES = {
    "no host": "alone",
    "FastAPI": "fastapi",
    "Starlette": "starlette",
    "Litestar": "litestar",
    "Quart": "quart",
    "Django (ASGI)": "django-asgi",
    "Django (WSGI)": "django-wsgi",
    "Flask": "flask",
}


def cases(column: str = "", says: str = "") -> Any:
    """Every host on every server that speaks the same; with a column, those of which the tables say this."""
    return pytest.mark.parametrize(
        ("host", "server"),
        [
            pytest.param(host, server, id=f"{NAMES[host]}-{server.replace(' ', '-')}")
            for host in HOSTS
            for server in SERVERS
            if SERVERS[server]["Speaks"] in HOSTS[host]["Speaks"]
            if not column or says == expected(column, host, server)
        ],
    )


def expected(column: str, host: str, server: str) -> str:
    """What the docs say of a pair: a host can do no more than its server."""
    said = HOSTS[host][column], SERVERS[server][column]
    return next((cell for cell in said if cell not in ("yes", "at the start")), said[0])


marks = (f"mark-{number}" for number in itertools.count())
Ask = Callable[[str, list[str]], Running]


class Case:
    """One host on one server."""

    def __init__(self, running: Ask, host: str, server: str) -> None:
        spoken = SERVERS[server]["Speaks"]
        hosts = [NAMES[name] for name, row in HOSTS.items() if spoken in row["Speaks"]]
        self.running = running(server, hosts)
        self.name, self.prefix = NAMES[host], "" if host == "no host" else "/lm"
        self.http = self.running.client(self.name)
        self.socket = f"ws://127.0.0.1:{self.running.server.port}{self.prefix}/-/ws"

    def stream(self, endpoint: str, text: str) -> Any:
        return self.http.stream("POST", f"{self.prefix}{endpoint}", json={"data": {"text": text}})


@pytest.fixture
def case(running: Ask, host: str, server: str) -> Any:
    made = Case(running, host, server)
    with made.http:
        yield made


def test_the_tables_name_every_host_server_and_example() -> None:
    assert set(NAMES) == set(HOSTS)
    assert set(COMMANDS) == set(SERVERS)
    shown = {row["Example"].partition("](")[0].strip("[") for row in HOSTS.values()}
    assert shown | {"parrot.py", "django_hello.py"} == {path.name for path in EXAMPLES.glob("*.py")}
    assert all({"yes"} == {row["JSON"], row["Streams"]} for row in HOSTS.values())


@cases()
def test_json_is_answered_beside_the_hosts_own_routes(case: Case) -> None:
    answer = case.http.post(f"{case.prefix}/shout", json={"data": [{"text": "hi ñ"}], "header": {"request_id": "mine"}})
    assert ["HI Ñ", "mine"] == [answer.json()["data"][0]["text"], answer.json()["header"]["request_id"]]
    assert {"title", "version"} <= case.http.get(f"{case.prefix}/openapi.json").json()["info"].keys()
    assert 404 == case.http.post(f"{case.prefix}/n%C3%B6", json={}).status_code
    if case.prefix:
        assert "hello" == case.http.get("/hello").text.strip('"')
        assert 200 == case.http.get(case.prefix).status_code


@cases()
def test_events_come_as_they_are_made_and_a_client_that_leaves_ends_them(case: Case) -> None:
    mark = next(marks)
    with case.stream("/forever", mark) as answer:
        first = next(answer.iter_lines())
    assert ["event: update", "text/event-stream"] == [first, answer.headers["content-type"].partition(";")[0]]
    case.running.journal.until(f"closed {mark}", within=5.0)


@cases()
def test_a_stream_ends_whole(case: Case) -> None:
    with case.stream("/repeat", "a b") as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert ["a", "b"] == [json.loads(line[6:])["text"] for line in lines[:-2] if line.startswith("data: ")]
    assert ["event: end", "data: null"] == lines[-2:]


@cases("A client that leaves stops", "yes")
def test_a_call_is_cancelled_when_its_client_leaves(case: Case) -> None:
    mark = next(marks)
    connection = case.running.server.connect()
    body = json.dumps({"data": [{"text": mark}]}).encode()
    head = (
        f"POST {case.prefix}/wait HTTP/1.1\r\nhost: test\r\nx-host: {case.name}\r\ncontent-type: application/json\r\n"
    )
    connection.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
    case.running.journal.until(f"began {mark}")
    connection.close()
    case.running.journal.until(f"cancelled {mark}", within=5.0)


@cases("WebSocket", "yes")
def test_the_websocket_answers(case: Case) -> None:
    with connect(case.socket, additional_headers={"x-host": case.name}) as socket:
        socket.send(json.dumps({"id": 1, "endpoint": "/shout", "data": {"text": "hi"}}))
        assert "HI" == json.loads(socket.recv(10.0))["data"][0]["text"]


@cases("WebSocket", "no")
def test_a_websocket_that_is_not_offered_is_refused_in_words(case: Case) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(case.socket, additional_headers={"x-host": case.name}):
        pass
    assert 400 == refused.value.response.status_code
    assert b"WSGI" in (refused.value.response.body or b"")


@cases()
def test_it_loads_when_the_table_says_so(case: Case, host: str, server: str) -> None:
    began = "with the first call" if case.running.states[case.name] == "stopped" else "at the start"
    assert expected("Loads", host, server) == began


@pytest.mark.parametrize("server", SERVERS)
def test_all_workers_ask_one_model(running: Ask, server: str) -> None:
    """The replica's process answers whichever worker was asked, and is none of them."""
    assert "yes" == SERVERS[server]["A pool"]
    some = Case(running, "no host", server).running
    pids = set()
    for _ in range(8):
        with some.client("pooled") as http:
            answer = http.post("/shout", json={"data": [{"text": "hi"}]})
            pids.add(answer.json()["data"][0]["pid"])
    assert 1 == len(pids)
    assert not pids & set(some.server.members())
