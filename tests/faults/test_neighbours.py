"""While one client sends the most expensive requests that are allowed, another is answered: the loop is never held long.

All of them, on every way, are sent by `soak_neighbours.py`; here are those that take a second.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import pytest

from tests.faults import neighbours, neighbours_answered
from tests.faults.neighbours import Server

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with neighbours.served() as server:
        yield server


@pytest.mark.parametrize(
    ("send", "name"),
    [
        (neighbours.by_json, "empty lists"),
        (neighbours.by_json, "keys that are no field's"),
        (neighbours.by_json, "items of a union"),
        (neighbours.by_json, "wrong items of a union"),
        (neighbours.by_json, "wrong items"),
        (neighbours.by_msgpack, "documents"),
        (neighbours.by_websocket, "parameters"),
        (neighbours.by_websocket, "keys of a field"),
        (neighbours.by_protobuf, "parameters"),
        (neighbours.by_binary_websocket, "documents"),
        (neighbours.by_grpc, "parameters"),
        (neighbours.by_many_calls, "3000"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
async def test_others_are_answered_while_a_costly_request_is(
    server: Server, send: Callable[[Server, str], Awaitable[None]], name: str
) -> None:
    await send(server, name)


@pytest.fixture(scope="module", params=["answers of a worker", "answers of a pool"])
def answering(request: pytest.FixtureRequest) -> Iterator[Server]:
    with neighbours.served(request.param) as server:
        yield server


@pytest.fixture(scope="module", params=["http", "grpc"])
def asking(request: pytest.FixtureRequest) -> Iterator[Server]:
    with neighbours.served_elsewhere(request.param, "answers of a worker") as server:
        yield server


@pytest.mark.parametrize(("way", "kind"), [("json", "texts"), ("msgpack", "a mapping"), ("events", "numbers")])
async def test_others_are_answered_while_an_answer_of_another_server_is_read(
    asking: Server, way: str, kind: str
) -> None:
    await neighbours_answered.check(asking, way, kind, 5)


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("json", "documents within"),
        ("json", "a vector"),
        ("json", "a mapping"),
        ("msgpack", "nested mappings"),
        ("protobuf", "texts"),
        ("events", "numbers"),
        ("websocket", "a mapping"),
        ("websocket steps", "documents within"),
        ("binary websocket", "numbers"),
        ("grpc", "texts"),
        ("grpc", "documents within"),
        ("grpc stream", "texts"),
    ],
)
async def test_others_are_answered_while_a_costly_answer_is_written(answering: Server, way: str, kind: str) -> None:
    await neighbours_answered.check(answering, way, kind, 5)
