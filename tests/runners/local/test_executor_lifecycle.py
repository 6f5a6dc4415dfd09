"""`__init__`, `warmup`, `health` and `close` of an Executor, written with def or with async def."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from jina_asgi import Deployment, Executor, ReplicaPool, requests
from jina_asgi.errors import DefinitionError, ExecutorError
from jina_asgi.runners.local.runner import LocalRunner
from jina_asgi.settings import DeploymentSettings


class Sync(Executor):
    """Notes what ran, and whether it ran on the loop."""

    noted: list[tuple[str, bool]]

    def __init__(self, notes: list[tuple[str, bool]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.noted = notes

    def note(self, what: str) -> None:
        self.noted.append((what, threading.current_thread() is threading.main_thread()))

    def warmup(self) -> Any:
        self.note("warmup")

    def health(self) -> Any:
        self.note("health")
        return False

    def close(self) -> Any:
        self.note("close")

    @requests
    def answer(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        self.note("answer")
        return docs


class Async(Sync):
    async def warmup(self) -> None:
        await asyncio.sleep(0)
        self.note("warmup")

    async def health(self) -> bool:
        await asyncio.sleep(0)
        self.note("health")
        return False

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.note("close")


def runner_of(cls: type[Executor], notes: list[Any]) -> LocalRunner:
    return LocalRunner(cls, DeploymentSettings.of({"name": "one", "uses_with": {"notes": notes}}))


@pytest.mark.parametrize(("cls", "on_loop"), [(Sync, False), (Async, True)])
async def test_each_runs_once_where_its_kind_runs(cls: type[Executor], on_loop: bool) -> None:
    notes: list[tuple[str, bool]] = []
    runner = runner_of(cls, notes)
    async with runner.lifespan():
        assert [("warmup", on_loop), ("health", on_loop)] == notes
        assert "one says that it is not healthy" == runner.unhealthy_reason()
    assert [("warmup", on_loop), ("health", on_loop), ("close", on_loop)] == notes


class Unwell(Async):
    async def warmup(self) -> None:
        raise ValueError("no such weights")


class UnwellInAThread(Sync):
    def warmup(self) -> None:
        raise ValueError("no such weights")


@pytest.mark.parametrize("cls", [Unwell, UnwellInAThread])
async def test_one_whose_warmup_fails_is_closed(cls: type[Executor]) -> None:
    notes: list[tuple[str, bool]] = []
    with pytest.raises(ValueError, match="no such weights"):
        async with runner_of(cls, notes).lifespan():
            pass
    await until_noted(notes, "close")


class Endless(Async):
    async def warmup(self) -> None:
        self.note("warmup")
        await asyncio.Event().wait()


async def test_one_that_is_given_up_while_it_warms_up_is_closed() -> None:
    notes: list[tuple[str, bool]] = []

    async def live() -> None:
        async with runner_of(Endless, notes).lifespan():
            pass

    living = asyncio.create_task(live())
    await until_noted(notes, "warmup")
    living.cancel()
    with pytest.raises(asyncio.CancelledError):
        await living
    await until_noted(notes, "close")


class Exiting(Async):
    async def warmup(self) -> None:
        raise SystemExit(3)


async def test_one_that_exits_while_it_warms_up_ends_nothing_but_itself() -> None:
    with pytest.raises(RuntimeError, match="SystemExit"):
        async with runner_of(Exiting, []).lifespan():
            pass


class Failing(Async):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__([], **kwargs)

    async def warmup(self) -> None:
        raise ValueError("no such weights")


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="pools are for Linux")
async def test_a_replica_awaits_its_warmup() -> None:
    with pytest.raises(ExecutorError, match="no such weights"):
        async with ReplicaPool(Failing):
            pass


async def until_noted(notes: list[tuple[str, bool]], what: str) -> None:
    async with asyncio.timeout(5):
        while what not in [name for name, _ in notes]:
            await asyncio.sleep(0.001)


async def test_an_executor_whose_close_is_async_is_used_by_async_with_alone() -> None:
    notes: list[tuple[str, bool]] = []
    async with Async(notes):
        pass
    with Sync(notes):
        pass
    async with Sync(notes):
        pass
    assert ["close"] * 3 == [name for name, _ in notes]
    with pytest.raises(DefinitionError, match=r"Async.close is async: expected `async with`"), Async(notes):
        pass


async def a_coroutine(self: Any, **kwargs: Any) -> None: ...
async def an_async_generator(self: Any) -> AsyncGenerator[int, None]:
    yield 1


def a_generator(self: Any) -> Generator[int, None, None]:
    yield 1


@pytest.mark.parametrize(
    ("name", "method", "said"),
    [
        ("__init__", a_coroutine, "Wrong.__init__ is async, which Python does not await; expected `def __init__`"),
        ("__init__", an_async_generator, "Wrong.__init__ is async"),
        ("__init__", a_generator, "Wrong.__init__ yields"),
        *((name, a_generator, f"Wrong.{name} yields") for name in ("warmup", "health", "close")),
        *((name, an_async_generator, f"Wrong.{name} yields") for name in ("warmup", "health", "close")),
    ],
)
def test_what_would_never_run_is_refused_when_the_class_is_made(name: str, method: Any, said: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        type("Wrong", (Executor,), {name: method})
    assert said in str(raised.value)


async def test_an_init_that_turns_out_to_be_async_is_refused_when_it_is_called() -> None:
    hidden = type("Hidden", (Executor,), {"__init__": lambda self, **_: a_coroutine(self)})
    with pytest.raises(DefinitionError, match=r"Hidden.__init__ returned <coroutine"):
        async with Deployment(hidden):
            pass
