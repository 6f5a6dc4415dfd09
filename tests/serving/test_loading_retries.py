"""What cannot be loaded is tried again, with pauses, until it can: nothing has to be restarted. A mistake is told once."""

from __future__ import annotations

import asyncio
import importlib
import logging
import weakref
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from jina_asgi import DefinitionError, Deployment, Executor, ExecutorError, Flow, JinaASGI, ReplicaPool, requests
from jina_asgi.errors.load_failure import LoadFailure, is_permanent
from jina_asgi.testing import client

HI = {"data": [{"text": "hi"}]}


class Text(BaseModel):
    text: str = ""


class Weights:
    """What is large."""


class Flaky(Executor):
    """Fails to load as often as it is asked to, as a file system does that is mounted late."""

    tries: int = 0
    alive: list[int]
    made: list[weakref.ref[Weights]]

    def __init__(self, failures: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        cls = type(self)
        cls.tries += 1
        cls.alive.append(sum(ref() is not None for ref in cls.made))
        weights = [Weights()]
        weights.append(weights)  # type: ignore[arg-type]  # a cycle, as in models
        cls.made.append(weakref.ref(weights[0]))
        if cls.tries <= failures:
            try:
                raise OSError("the file system SECRET is not mounted")
            except OSError as error:
                raise RuntimeError("no weights") from error

    @requests(on="/echo")
    def echo(self, docs: list[Text]) -> list[Text]:
        return docs


@pytest.fixture
def flaky() -> type[Flaky]:
    """A class of its own, which nothing has tried."""
    return type("Flaky", (Flaky,), {"tries": 0, "alive": [], "made": []})


async def ready(http: httpx.AsyncClient) -> httpx.Response:
    """The first answer of `/-/ready` that is no 503, within 20 seconds."""
    async with asyncio.timeout(20.0):
        while (answer := await http.get("/-/ready")).status_code == 503:
            await asyncio.sleep(0.02)
    return answer


sources = pytest.mark.parametrize(
    "made",
    [
        lambda cls, n: Deployment(uses=cls, uses_with={"failures": n}),
        lambda cls, n: Flow().add(uses=cls, uses_with={"failures": n}),
    ],
    ids=["deployment", "flow"],
)


@sources
async def test_what_fails_to_load_is_tried_again_until_it_has_loaded(made: Any, flaky: type[Flaky]) -> None:
    async with client(JinaASGI(made(flaky, 2))) as http:
        answer = await http.post("/echo", json=HI)
        assert (503, "NotReady") == (answer.status_code, answer.json()["error"]["type"])
        why = (await http.get("/-/ready")).json()["detail"]
        assert "failed to load (RuntimeError)" in why
        assert "it is tried again" in why
        assert "SECRET" not in why
        assert 200 == (await ready(http)).status_code
        assert [{"text": "hi"}] == (await http.post("/echo", json=HI)).json()["data"]
    assert 3 == flaky.tries


async def test_what_a_try_had_made_is_let_go_before_the_next(flaky: type[Flaky]) -> None:
    async with client(JinaASGI(flaky_with(flaky, 2))) as http:
        await ready(http)
    assert [0, 0, 0] == flaky.alive


def flaky_with(flaky: type[Flaky], failures: int) -> Deployment:
    return Deployment(uses=flaky, uses_with={"failures": failures})


async def test_the_end_of_serving_does_not_wait_for_the_next_try(flaky: type[Flaky]) -> None:
    asgi = JinaASGI(flaky_with(flaky, 1000))
    async with asyncio.timeout(5.0):
        async with client(asgi) as http:
            await http.post("/echo", json=HI)
            assert 503 == (await http.get("/-/ready")).status_code
    assert "stopped" == asgi.service.state


async def test_the_same_error_again_is_one_line_in_the_log_under_the_same_id(
    flaky: type[Flaky], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "jina_asgi"):
        async with client(JinaASGI(flaky_with(flaky, 2))) as http:
            await ready(http)
    first, again = (record for record in caplog.records if "failed to load" in record.getMessage())
    assert first.exc_info
    assert not again.exc_info
    assert first.getMessage().split()[1].strip(":") == again.getMessage().split()[1]


class Wrong(Executor):
    """Breaks the rules for Executors, which no other try mends."""

    tries = 0

    def __init__(self, how: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        Wrong.tries += 1
        if how == "import":
            importlib.import_module("no_such_module_anywhere")
        raise DefinitionError("an option that does not fit")

    @requests(on="/echo")
    def echo(self, docs: list[Text]) -> list[Text]:
        return docs


@pytest.mark.parametrize(("how", "told"), [("import", "ModuleNotFoundError"), ("option", "DefinitionError")])
async def test_a_mistake_is_reported_at_once_and_is_not_tried_again(how: str, told: str) -> None:
    Wrong.tries = 0
    asgi = JinaASGI(Deployment(uses=Wrong, uses_with={"how": how}))
    async with client(asgi) as http:
        answer = await http.post("/echo", json=HI)
        why = (await http.get("/-/ready")).json()["detail"]
    assert 503 == answer.status_code
    assert f"failed to load ({told})" in why
    assert "it is not tried again before a restart" in why
    assert 1 == Wrong.tries


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DefinitionError("x"), True),
        (ExecutorError("x", raised="DefinitionError"), True),
        (ExecutorError("x", raised="SyntaxError"), True),
        (ImportError("x"), True),
        (ExecutorError("x", raised="OSError"), False),
        (OSError("x"), False),
        (MemoryError(), False),
        (TypeError("x"), False),
    ],
)
def test_errors_of_code_and_options_are_permanent_and_no_others(error: Exception, expected: bool) -> None:
    assert expected == is_permanent(error)


def test_another_error_has_an_id_of_its_own() -> None:
    first = LoadFailure.logged(OSError("a"), "failed")
    assert first.id == LoadFailure.logged(OSError("a"), "failed", before=first).id
    assert first.id != LoadFailure.logged(OSError("b"), "failed", before=first).id


class Counted(Executor):
    """Fails to load until a file has as many lines as it is told."""

    def __init__(self, path: str, failures: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with open(path, "a+") as file:
            file.write("x\n")
            file.seek(0)
            tries = len(file.readlines())
        if tries <= failures:
            raise RuntimeError("SECRET")

    @requests(on="/echo")
    def echo(self, docs: list[Text]) -> list[Text]:
        return docs


@pytest.mark.processes
async def test_replicas_that_fail_to_load_five_times_are_tried_again(tmp_path: Path) -> None:
    """After five failures in a row the pool gives its first load up; its application does not."""
    pool = ReplicaPool(uses=Counted, uses_with={"path": str(tmp_path / "tries"), "failures": 5})
    async with client(JinaASGI(pool)) as http:
        async with asyncio.timeout(60.0):
            while "failed to load" not in (why := (await http.get("/-/ready")).json()["detail"]):
                await asyncio.sleep(0.01)
            assert "failed to load (RuntimeError)" in why
            assert "SECRET" not in why
        assert 200 == (await ready(http)).status_code
        assert 200 == (await http.post("/echo", json=HI)).status_code
