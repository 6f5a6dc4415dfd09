"""What an Executor's own `health` says in the process that serves it: every readiness check tells it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from docarray import DocList
from docarray.documents import TextDoc

from jina_asgi import Client, Deployment, Executor, Flow, GRPCSidecar, JinaASGI, requests
from jina_asgi.protocols.grpc.discovery import NOT_SERVING, SERVING, HealthRequest, HealthResponse
from jina_asgi.runners.local.executor_lifecycle import HealthWatch
from jina_asgi.testing import client
from tests.doubles.reference_cycles import check_no_cycle_after

SOON = 10.0  # seconds, on a busy machine
RAISED: dict[str, BaseException] = {
    "an error": ValueError("the password is x"),
    "an exit": SystemExit(3),
    "an interrupt": KeyboardInterrupt(),
}


class Patient(Executor):
    """Is as the class says; counts how often it is asked."""

    how: Any = True
    asked = 0
    returns = threading.Event()

    def answer(self) -> bool:
        cls = type(self)
        cls.asked += 1
        if isinstance(cls.how, BaseException):
            raise cls.how
        return bool(cls.how)

    def health(self) -> Any:
        if type(self).how == "hangs":
            type(self).asked += 1
            return self.returns.wait()
        return self.answer()

    @requests(on="/echo")
    def echo(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        return docs


class AsyncPatient(Patient):
    async def health(self) -> bool:
        while type(self).how == "hangs":
            await asyncio.sleep(0.01)  # the hang itself
        return self.answer()


class Well(Executor):
    @requests(on="/echo")
    def echo(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        return docs


@pytest.fixture(params=[Patient, AsyncPatient])
def patient(request: pytest.FixtureRequest) -> type[Patient]:
    return type("One", (request.param,), {"returns": threading.Event(), "how": True, "asked": 0})


BATCHED = {"/echo": {"preferred_batch_size": 4}}
SERVED: dict[str, tuple[Callable[[type[Executor]], Any], str]] = {
    "a Deployment": (lambda cls: Deployment(cls, name="one"), "one"),
    "a batched one": (lambda cls: Deployment(cls, name="one", uses_dynamic_batching=BATCHED), "one"),
    "shards": (lambda cls: Deployment(cls, name="one", shards=2), "one-shard-0"),
    "a Flow": (lambda cls: Flow().add(uses=Well, name="well").add(uses=cls, name="one"), "one: one"),
    "a Flow in a Flow": (
        lambda cls: Flow().add(uses=Flow().add(uses=cls, name="one"), name="outer"), "outer: one: one",
    ),
}  # fmt: skip


@asynccontextmanager
async def served(source: Any) -> AsyncIterator[Any]:
    async with asyncio.timeout(6 * SOON), client(JinaASGI(source, wait_ready=True)) as http:
        yield http


async def readiness(http: Any, status: int) -> Any:
    """The answer of `/-/ready` once its status is this one."""
    async with asyncio.timeout(SOON):
        while (answer := await http.get("/-/ready")).status_code != status:
            await asyncio.sleep(0.02)  # health is asked as time goes by
    return answer


@pytest.mark.parametrize("how", SERVED)
async def test_readiness_is_what_health_says_and_names_what_is_ill(patient: type[Patient], how: str) -> None:
    make, name = SERVED[how]
    async with served(make(patient)) as http:
        await readiness(http, 200)
        patient.how = False
        ill = await readiness(http, 503)
        assert f"{name} says that it is not healthy" in ill.json()["detail"]
        dry = (await http.get("/dry_run")).json()
        assert (1, True) == (dry["code"], "not healthy" in dry["description"])
        answered = await http.post("/echo", json={"data": [{"text": "x"}]})
        patient.how = True
        await readiness(http, 200)
        assert 0 == (await http.get("/dry_run")).json()["code"]
    assert 200 == answered.status_code  # whether calls are sent is decided by who asks for readiness


@pytest.mark.parametrize("raised", RAISED)
async def test_what_health_raises_is_reported_by_its_class_and_an_id_and_logged_once(
    patient: type[Patient], raised: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "jina_asgi")
    patient.how = RAISED[raised]
    async with served(Deployment(patient, name="one")) as http:
        detail = (await readiness(http, 503)).json()["detail"]
        asked = patient.asked
        async with asyncio.timeout(SOON):
            while patient.asked < asked + 2:
                await asyncio.sleep(0.02)  # it is asked as time goes by
        assert detail == (await readiness(http, 503)).json()["detail"]
        patient.how = True
        await readiness(http, 200)
    assert "one: its health() failed (" in detail
    assert "password" not in detail
    (record,) = [record for record in caplog.records if "health() failed" in record.getMessage()]
    assert record.getMessage().split()[1].rstrip(":") in detail  # the id
    assert record.exc_info


async def test_health_that_hangs_is_ill_asked_no_further_and_holds_up_no_end(patient: type[Patient]) -> None:
    patient.how = "hangs"
    threads = threading.active_count()
    async with served(Deployment(patient, name="one")) as http:
        assert "takes longer than 1 s" in (await readiness(http, 503)).json()["detail"]
        await asyncio.sleep(2.5)  # in which it would be asked again
        assert threading.active_count() <= threads + 3  # the Executor's, that of `health`, one for large bodies
        if not issubclass(patient, AsyncPatient):
            assert 1 == patient.asked
        patient.how = True
        patient.returns.set()
        await readiness(http, 200)
        patient.how = "hangs"
        patient.returns.clear()
        await readiness(http, 503)
    patient.returns.set()


async def test_health_is_asked_once_a_second_however_often_readiness_is(patient: type[Patient]) -> None:
    async with served(Deployment(patient)) as http:
        asked = patient.asked
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() < began + 2.5:
            await readiness(http, 200)
        assert 1 <= patient.asked - asked <= loop.time() - began + 1


async def test_one_that_is_mounted_twice_is_asked_as_one(patient: type[Patient]) -> None:
    deployment = Deployment(patient, name="one")
    async with served(deployment) as first, served(deployment) as second:
        patient.how = False
        await readiness(first, 503)
        assert 503 == (await second.get("/-/ready")).status_code
        patient.how = True
        await readiness(second, 200)


async def test_grpc_reports_it_too(patient: type[Patient]) -> None:
    async with GRPCSidecar(Deployment(patient, name="one")) as sidecar:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{sidecar.port}") as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")

            async def until(status: int) -> None:
                async with asyncio.timeout(SOON):
                    while HealthResponse.FromString(await check(HealthRequest().SerializeToString())).status != status:
                        await asyncio.sleep(0.02)  # health is asked as time goes by

            asking = Client(host="127.0.0.1", port=sidecar.port, protocol="grpc", asyncio=True)
            await until(SERVING)
            assert await asking.is_flow_ready()
            patient.how = False
            await until(NOT_SERVING)
            assert not await asking.is_flow_ready()


class Slow(Patient):
    """Answers after most of the time that it has."""

    def health(self) -> bool:
        self.returns.wait(0.6)
        return True


PAUSED = """
import asyncio, sys
from jina_asgi.runners.local.executor_lifecycle import HealthWatch
from tests.runners.local.test_health import Slow

async def main():
    watch = HealthWatch(Slow(), "one")
    asking = asyncio.create_task(watch.look())
    await asyncio.sleep(0.1)
    print("asked", flush=True)
    await asking
    print(repr(watch.unhealthy_reason), flush=True)

asyncio.run(main())
"""


@pytest.mark.processes
def test_time_in_which_the_process_was_paused_is_no_sign_of_illness() -> None:
    paused = subprocess.Popen([sys.executable, "-c", PAUSED], stdout=subprocess.PIPE, text=True)
    with paused:
        assert paused.stdout is not None
        assert "asked\n" == paused.stdout.readline()
        os.kill(paused.pid, signal.SIGSTOP)
        threading.Event().wait(3.0)  # the pause itself
        os.kill(paused.pid, signal.SIGCONT)
        assert "''\n" == paused.stdout.readline()


@pytest.mark.parametrize("raised", RAISED)
async def test_a_health_that_raises_leaves_nothing_to_the_garbage_collector(
    patient: type[Patient], raised: str
) -> None:
    patient.how = RAISED[raised]
    gc.collect()
    watch = HealthWatch(patient(), "one")
    await check_no_cycle_after(watch.look)
