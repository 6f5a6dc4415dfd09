"""Jina's Client and ours ask a real Jina and ours, a Deployment and a Flow, the same things over every protocol."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.uvicorn_server import free_ports
from tests.interop.conftest import OURS, running

pytestmark = pytest.mark.processes

#: What `asks.py` is told of a Flow over gRPC by Jina's Client; any other differs where it is said below.
ANSWERS: dict[str, Any] = {
    "ready": True,
    "upper": ["A!", "B!"],
    "number": ["A7", "B7"],
    "for this one": ["A?", "B?"],
    "for another": ["A", "B"],
    "typed": ["aaa", "bbb"],
    "of a model": ["aa!", "bb!"],
    "typed wrongly": "BadServer",
    "single": ["ba", "dc"],
    "root": ["default a", "default b"],
    "unknown": ["default a", "default b"],
    "nothing": ["0"],
    "whole": ["n", 8, 0.5, True, ["x", "y"], [2.0, 4.0], [[1.0], [2.0]], [2, 1], True],
    "bytes": "00ff",
    "fail": "BadServer",
    "go on": ["bad", "fine", "good"],
    "callbacks": ["['always']"] * 3 + ["['done', ['fine']]", "['done', ['good']]", "['error', ['bad'], 1]"],
    "dict": {"model/rep-0": {"n": 2}},
    "routes": ["gateway", "model"],
    "sizes": ["100", "100", "50"],
    "all in one": "ZeroDivisionError",
    "in order": True,
    "a few at once": 250,
    "not streamed": ["A", "B"],
    "generator": ["X", "Y", "Z"],
    "metadata": ["A", "B"],
}
OF_SYNC = {"one document": "X"}
OF_ASYNC = {"stream": ["q0", "q1", "q2"], "no stream": "BadServer"}

Differences = dict[str, dict[str, Any]]
#: A Deployment is nobody's node by name: a parameter for one is for another.
OF_A_DEPLOYMENT = {"for this one": ["A", "B"]}
#: Jina's Client gives the documents of a failed request when it goes on, divides by a size of 0, and finds out from the
#: server's answer that an endpoint is no stream. Over HTTP every error is HTTP's, whatever it is told to do with errors,
#: it writes no bytes as JSON, and what is no stream gives nothing; over its WebSocket it has no streams.
OF_JINAS_CLIENT: Differences = {
    "grpc": {},
    "http": {
        **dict.fromkeys(("typed wrongly", "fail", "go on", "callbacks"), "ValueError"),
        "bytes": "TypeError",
        "no stream": [],
    },
    "websocket": {"stream": "TypeError", "no stream": "TypeError"},
}
OF_OURS = {"go on": ["fine", "good"], "all in one": ["250"], "no stream": "BadClientInput"}
#: What is told in JSON names no routes; of our own WebSocket too, which ours speaks to ours.
NO_ROUTES: dict[str, Any] = {"routes": []}


@pytest.fixture(scope="module", params=["deployment", "flow"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["jina", "ours"])
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Ask = Callable[[Path], dict[tuple[str, str], Any]]


@pytest.fixture(scope="module")
def ask(jina_python: Path, run: Callable[..., str], kind: str, server: str) -> Iterator[Ask]:
    """What a Client is told by a server: all of it at once, by the protocol and the name of what it asks."""
    protocols = ["grpc", "http"] if (kind, server) == ("deployment", "jina") else ["grpc", "http", "websocket"]
    words = [f"{protocol}={port}" for protocol, port in zip(protocols, free_ports(len(protocols)), strict=True)]

    @functools.cache
    def asked(client: Path) -> dict[tuple[str, str], Any]:
        lines = run("asks.py", *words, python=client).splitlines()
        told = [json.loads(line) for line in lines if line.startswith('["')]  # Jina logs to its output too
        return {(protocol, name): said for protocol, name, said in told}

    with running(OURS if server == "ours" else jina_python, "serves.py", kind, *words):
        yield asked


def expected(kind: str, *differences: dict[str, Any]) -> dict[str, Any]:
    """The answers to a Client, by the names of what it asks."""
    changed: dict[str, Any] = {} if kind == "flow" else dict(OF_A_DEPLOYMENT)
    for one in differences:
        changed |= one
    made: dict[str, Any] = {}
    for mode, more in (("", OF_SYNC), ("async ", OF_ASYNC)):
        answers = {**ANSWERS, **more}
        own = {name.removeprefix(mode): said for name, said in changed.items() if mode and name.startswith(mode)}
        answers |= {name: said for name, said in changed.items() if name in answers} | own
        made |= {f"{mode}{name}": said for name, said in answers.items()}
    return made


def told(answers: dict[tuple[str, str], Any], protocol: str) -> dict[str, Any]:
    return {name: said for (by, name), said in answers.items() if by == protocol}


@pytest.fixture(params=["grpc", "http", "websocket"])
def protocol(request: pytest.FixtureRequest, kind: str, server: str) -> str:
    if (kind, server, request.param) == ("deployment", "jina", "websocket"):
        pytest.skip("a Jina Deployment refuses to serve a WebSocket")
    return str(request.param)


def test_jinas_client_gets_the_same(ask: Ask, kind: str, server: str, protocol: str, jina_python: Path) -> None:
    """GR-01: by its own server, whose answers are what is expected, and by ours."""
    differences = dict(OF_JINAS_CLIENT[protocol])
    if protocol == "http":
        differences |= NO_ROUTES
    if (server, kind) == ("jina", "deployment"):
        own: Differences = {
            "grpc": {"routes": ["executor", "gateway"]},  # it calls itself so
            "http": {"ready": False},  # it has no /dry_run
        }
        differences |= own[protocol]
    if (server, protocol) == ("jina", "http"):
        differences |= {"stream": []}  # it does not find them in what its server sends
    answers, found = expected(kind, differences), told(ask(jina_python), protocol)
    if (server, protocol) == ("jina", "websocket"):  # it often loses an error, as the socket closes with it
        for name in ("typed wrongly", "fail", "async typed wrongly", "async fail"):
            del answers[name], found[name]
    assert answers == found


def test_our_client_gets_the_same(ask: Ask, kind: str, server: str, protocol: str) -> None:
    differences = dict(OF_OURS)
    if protocol == "http" or (protocol, server) == ("websocket", "ours"):
        differences |= NO_ROUTES
    if (protocol, server) == ("websocket", "jina"):
        differences |= {"stream": "BadClientInput"}
    if (protocol, kind, server) == ("grpc", "deployment", "jina"):
        differences |= {"routes": ["executor", "gateway"]}
    if (protocol, kind, server) == ("http", "flow", "jina"):
        differences |= {"all in one": ["100"]}  # it answers the first hundred, and leaves out the others
    assert expected(kind, differences) == told(ask(OURS), protocol)
