"""The `auth` hook: whatever function of two arguments it is, it says who calls; what is none is refused at once."""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncGenerator, Generator, Mapping
from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from jina_asgi import Context, Executor, JinaASGI, requests
from jina_asgi.errors import DefinitionError
from jina_asgi.testing import client


class Greeter(Executor):
    @requests(on="/greet")
    def greet(self, docs: DocList[TextDoc], context: Context) -> DocList[TextDoc]:
        return DocList[TextDoc]([TextDoc(text=f"{context.identity}") for _ in docs])


def known(headers: Mapping[str, str], endpoint: str) -> str | None:
    return headers.get("x-user")


async def known_later(headers: Mapping[str, str], endpoint: str) -> str | None:
    return known(headers, endpoint)


def known_of(kind: str, headers: Mapping[str, str], endpoint: str) -> str | None:
    return known(headers, endpoint)


class Hook:
    def __call__(self, headers: Mapping[str, str], endpoint: str) -> str | None:
        return known(headers, endpoint)

    def method(self, headers: Mapping[str, str], endpoint: str, realm: str = "") -> str | None:
        return known(headers, endpoint)


class AsyncHook:
    async def __call__(self, headers: Mapping[str, str], endpoint: str) -> str | None:
        return known(headers, endpoint)


HOOKS: dict[str, Any] = {
    "async def": known_later,
    "def": known,
    "a lambda that calls an async one": lambda headers, endpoint: known_later(headers, endpoint),
    "a partial": functools.partial(known_of, "basic"),
    "an object": Hook(),
    "an object with an async call": AsyncHook(),
    "a method": Hook().method,
}


@pytest.mark.parametrize("hook", HOOKS)
async def test_it_may_be_any_function_of_two_arguments(hook: str) -> None:
    async with client(JinaASGI(Greeter, auth=HOOKS[hook], wait_ready=True)) as http:
        body = {"data": {"text": ""}}
        there = await http.post("/greet", json=body, headers={"x-user": "ada"})
        assert [200, "ada"] == [there.status_code, there.json()["data"][0]["text"]]
        assert 401 == (await http.post("/greet", json=body)).status_code
        assert 401 == (await http.get("/-/status")).status_code


async def test_one_that_is_not_async_does_not_hold_the_loop() -> None:
    threads: list[threading.Thread] = []

    def slow(headers: Mapping[str, str], endpoint: str) -> str:
        threads.append(threading.current_thread())
        return "ada"

    async with client(JinaASGI(Greeter, auth=slow, wait_ready=True)) as http:
        await http.post("/greet", json={"data": {"text": ""}})
    assert threading.current_thread() not in threads


@pytest.mark.parametrize("raised", [ValueError("no"), StopIteration(), SystemExit(3)], ids=repr)
async def test_one_that_raises_is_a_500_and_no_more(raised: BaseException) -> None:
    def broken(headers: Mapping[str, str], endpoint: str) -> str:
        raise raised

    async with client(JinaASGI(Greeter, auth=broken, wait_ready=True)) as http:
        answers = [await http.post("/greet", json={"data": {"text": ""}}) for _ in range(2)]
        assert [500, 500] == [answer.status_code for answer in answers]


def nothing() -> None: ...
def one(headers: Mapping[str, str]) -> None: ...
def three(headers: Mapping[str, str], endpoint: str, more: str) -> None: ...
def yields(headers: Mapping[str, str], endpoint: str) -> Generator[str, None, None]:
    yield "ada"


async def yields_later(headers: Mapping[str, str], endpoint: str) -> AsyncGenerator[str, None]:
    yield "ada"


@pytest.mark.parametrize(
    "hook", [nothing, one, three, yields, yields_later, "ada", Hook], ids=lambda hook: getattr(hook, "__name__", hook)
)
def test_what_is_none_is_refused_when_the_application_is_made(hook: Any) -> None:
    with pytest.raises(DefinitionError, match=r"'auth': expected .*\(headers, endpoint\)"):
        JinaASGI(Greeter, auth=hook)
