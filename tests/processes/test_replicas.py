"""Replicas as real processes, and what can befall them: every call has one outcome, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from jina_asgi import (
    Context,
    DeadlineExceeded,
    DefinitionError,
    Executor,
    ExecutorError,
    NotReady,
    ReplicaDied,
    ReplicaPool,
    requests,
)
from tests.doubles.replica_executors import Dying, Failing, Number, Order, Slow, Stubborn, Word, Worker
from tests.doubles.replica_watch import (
    PATIENCE,
    all_up,
    ended,
    kill,
    noted,
    outcome,
    pid_of,
    pids,
    resident,
    runs,
    seats,
    status,
    until,
)
from tests.doubles.rig import ROOT, Journal

pytestmark = pytest.mark.processes


# -- deaths


async def test_a_replica_that_was_killed_is_replaced() -> None:
    async with ReplicaPool(Worker, replicas=1) as pool:
        first = await pid_of(pool)
        kill(first)
        assert await pid_of(pool) not in (first, None)
        assert seats(pool)[0]["restarts"] == 1


async def test_the_call_that_ran_when_its_replica_died_fails_and_those_behind_it_move(journal: Journal) -> None:
    async with ReplicaPool(Worker, replicas=1, env=journal.env) as pool:
        (pid,) = await all_up(pool)
        running = asyncio.create_task(outcome(pool, "/once", Order(name="first", pause=60)))
        await noted(journal, "began first")
        behind = [asyncio.create_task(outcome(pool, "/once", Order(name=f"n{index}"))) for index in range(5)]
        await pid_of(pool)  # sent after them
        kill(pid)
        assert await running == "ReplicaDied"
        assert await asyncio.gather(*behind) == ["right"] * 5
        ran = journal.so_far()
    assert sorted(ran) == ["began first", *(f"began n{index}" for index in range(5))]
    assert status(pool)["lost"] == 1
    assert status(pool)["moved"] >= 1


async def test_with_several_threads_only_what_had_begun_fails(journal: Journal) -> None:
    async with ReplicaPool(Worker, replicas=1, allow_concurrent=2, env=journal.env) as pool:
        (pid,) = await all_up(pool)
        orders = [Order(name=f"n{index}", pause=60 if index < 2 else 0) for index in range(6)]
        calls = [asyncio.create_task(outcome(pool, "/once", order)) for order in orders]
        await noted(journal, "began n0")
        await noted(journal, "began n1")
        kill(pid)
        assert await asyncio.gather(*calls) == ["ReplicaDied"] * 2 + ["right"] * 4


async def test_an_idempotent_call_runs_again_elsewhere(journal: Journal) -> None:
    async with ReplicaPool(Worker, replicas=2, env=journal.env) as pool:
        await all_up(pool)
        call = asyncio.create_task(outcome(pool, "/again", Order(name="twice", pause=0.5)))
        await noted(journal, "began twice")
        kill(*[seat["pid"] for seat in seats(pool) if seat["in_flight"]])
        assert await call == "right"
        assert journal.so_far() == ["began twice", "began twice"]
        assert status(pool)["retried"] == 1


async def test_async_calls_beyond_what_the_marks_have_room_for_never_run_twice(journal: Journal) -> None:
    """The call that began late has a smaller number than one that shares its mark."""
    async with ReplicaPool(Worker, replicas=1, env=journal.env) as pool:
        (pid,) = await all_up(pool)
        first = asyncio.create_task(outcome(pool, "/once", Order(name="first", pause=1.0)))  # number n
        await noted(journal, "began first")
        second = asyncio.create_task(outcome(pool, "/once", Order(name="second", pause=60)))  # n + 1, begins later
        await asyncio.sleep(0)
        for _ in range(510):
            await pid_of(pool)
        late = asyncio.create_task(outcome(pool, "/once_async", Order(name="late", pause=60)))  # n + 512
        later = asyncio.create_task(outcome(pool, "/once_async", Order(name="later", pause=60)))  # n + 513
        await noted(journal, "began later")
        await noted(journal, "began second")
        assert await first == "right"
        kill(pid)
        assert {"ReplicaDied"} == {await call for call in (second, late, later)}


async def test_calls_survive_the_death_of_all_replicas_at_once(journal: Journal) -> None:
    async with ReplicaPool(Worker, replicas=2, env=journal.env) as pool:
        both = await all_up(pool)
        held = [asyncio.create_task(outcome(pool, "/once", Order(name=f"held{i}", pause=60))) for i in range(2)]
        await noted(journal, "began held0")
        await noted(journal, "began held1")
        queued = [asyncio.create_task(outcome(pool, "/once", Order(name=f"n{index}"))) for index in range(20)]
        await asyncio.sleep(0)
        kill(*both)
        assert await asyncio.gather(*held) == ["ReplicaDied"] * 2
        assert await asyncio.gather(*queued) == ["right"] * 20
        assert not set(both) & set(await all_up(pool))


@pytest.mark.parametrize(("on", "allowed"), [("/again", {"right"}), ("/once", {"right", "ReplicaDied"})])
async def test_no_answer_is_wrong_or_missing_while_replicas_are_killed(on: str, allowed: set[str]) -> None:
    """RP-01, scaled down: `tests/faults/soak_pool.py` has the whole."""
    outcomes: list[str] = []
    slowest = 0.0
    over = asyncio.Event()

    async def hammer(client: int) -> None:
        nonlocal slowest
        for number in itertools.count():
            if over.is_set():
                return
            start = time.monotonic()
            outcomes.append(await outcome(pool, on, Order(name=f"{client}-{number}", pause=0.002)))
            slowest = max(slowest, time.monotonic() - start)
            await asyncio.sleep(0)  # a refusal waits for nothing

    dice = random.Random(7)
    async with ReplicaPool(Worker, replicas=2) as pool:
        clients = [asyncio.create_task(hammer(index)) for index in range(8)]
        for _ in range(8):
            await until(lambda: len(pids(pool)) == 2)
            await asyncio.sleep(dice.uniform(0.1, 0.4))  # the moment of the kill is what varies
            kill(dice.choice(pids(pool)))
        over.set()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*clients)
    assert set(outcomes) <= allowed
    assert outcomes.count("ReplicaDied") <= 2 * 8  # of each, what ran, and what had run but not left
    assert slowest < 10.0


@pytest.mark.parametrize("how", ["killed", "exit", "abort", "segfault", "real-time signal"])
async def test_an_end_of_the_process_however_it_came_is_a_death(how: str) -> None:
    async with ReplicaPool(Worker, replicas=1) as pool:
        first = await pid_of(pool)
        with pytest.raises(ReplicaDied):
            await pool.call("/die", Word(text=how))
        assert await pid_of(pool) != first


async def test_a_replica_is_not_reported_as_ready_after_a_call_failed_by_its_death() -> None:
    """Its connection ends before its process does."""
    async with ReplicaPool(Worker, replicas=1) as pool:
        for _ in range(3):
            await all_up(pool)
            with pytest.raises(ReplicaDied):
                await pool.call("/die", Word(text="killed"))
            assert seats(pool)[0]["state"] != "ready"


@pytest.mark.parametrize("on", ["/exit", "/exit_async", "/interrupt", "/interrupt_async"])
async def test_what_would_end_a_program_is_one_requests_error(on: str) -> None:
    async with ReplicaPool(Worker, replicas=1) as pool:
        first = await pid_of(pool)
        with pytest.raises(ExecutorError):
            await pool.call(on, Word())
        assert await pid_of(pool) == first


async def test_a_call_that_ended_two_replicas_ends_no_third(journal: Journal) -> None:
    async with ReplicaPool(Worker, replicas=3, env=journal.env) as pool:
        before = await all_up(pool)
        with pytest.raises(ReplicaDied, match="two replicas died"):
            await pool.call("/die_again", Word(text="killed"))
        assert 2 == len(journal.so_far()) == len(set(journal.notes))
        assert len(set(before) & set(await all_up(pool))) == 1


# -- hangs


async def test_a_stopped_replica_is_found_and_replaced() -> None:
    async with ReplicaPool(Worker, replicas=1, heartbeat=1.0) as pool:
        first = await pid_of(pool)
        kill(first, by=signal.SIGSTOP)
        async with asyncio.timeout(4.0 + 2.0):  # to find it, and to load another
            assert await pid_of(pool) != first
        assert not runs(first)


async def test_a_call_that_holds_the_interpreter_is_found_and_its_replica_replaced(journal: Journal) -> None:
    async with ReplicaPool(Worker, replicas=1, heartbeat=1.0, env=journal.env) as pool:
        first = await pid_of(pool)
        start = time.monotonic()
        with pytest.raises(ReplicaDied):
            await pool.call("/hold_interpreter", Order(pause=60))
        assert time.monotonic() - start < 4.0
        assert await pid_of(pool) != first


async def test_a_busy_machine_is_no_hang() -> None:
    burning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        async with ReplicaPool(Worker, replicas=2) as pool:
            before = await all_up(pool)
            end = time.monotonic() + 8.0  # more than the time from one look to the next
            while time.monotonic() < end:
                await pool.call("/again", Order(name="x", pause=0.05))
            assert pids(pool) == before
    finally:
        for process in burning:
            process.kill()
            process.wait()


# -- loading


async def test_an_executor_that_always_fails_to_load_says_why(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    with pytest.raises(ExecutorError, match="ValueError: no such model: grumpy-cat"):
        async with ReplicaPool(Failing, replicas=2, uses_with={"starts": str(starts), "times": 1000}):
            raise AssertionError
    assert 5 <= len(starts.read_text().splitlines()) < 10


async def test_one_that_fails_twice_comes_up_and_the_log_has_the_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    starts = tmp_path / "starts"
    async with ReplicaPool(Failing, replicas=1, uses_with={"starts": str(starts), "times": 2}) as pool:
        assert await pid_of(pool) == int(starts.read_text().splitlines()[2])
    logged = [record for record in caplog.records if "next try in" in record.getMessage()]
    (cause,) = [str(record.exc_info[1]) for record in logged if record.exc_info]
    assert "grumpy-cat" in cause
    (first, again) = [record.getMessage() for record in logged]
    assert again.startswith(f"{first.partition(':')[0]} again: ")  # the same error: one line, under the same id


@pytest.mark.parametrize("how", ["exit", "segfault"])
async def test_one_that_dies_while_it_loads_says_how(how: str, tmp_path: Path) -> None:
    with pytest.raises(ExecutorError, match="exited with code 0" if how == "exit" else "SIGSEGV"):
        async with ReplicaPool(Dying, replicas=2, uses_with={"how": how}):
            raise AssertionError


async def test_loading_may_take_so_long_and_no_longer(journal: Journal) -> None:
    slow = ReplicaPool(Slow, replicas=1, uses_with={"seconds": 60}, startup_timeout=2.0, env=journal.env)
    start = time.monotonic()
    opening = asyncio.create_task(slow.__aenter__())
    try:
        await noted(journal, "loading")
        await until(lambda: seats(slow)[0]["failure"] is not None)
        assert time.monotonic() - start < 5.0
        assert "NotReady" == seats(slow)[0]["failure"]["type"]
    finally:
        opening.cancel()
        await asyncio.wait([opening])


MODULES = {
    "an error": ("raise RuntimeError('grumpy cat')", "RuntimeError: grumpy cat"),
    "a syntax error": ("def (", "SyntaxError: .*broken_model.py, line"),
    "a missing module": ("import there_is_no_such_module", "No module named 'there_is_no_such_module'"),
    "an exit": ("raise SystemExit(3)", "SystemExit: 3"),
    "a long error": ("raise RuntimeError('grumpy ' * 200_000)", "RuntimeError: grumpy"),
}


@pytest.mark.parametrize("what", MODULES)
async def test_a_module_that_breaks_on_import_is_named_in_one_message(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It breaks only in replicas: where the ReplicaPool is written it has been imported."""
    code, message = MODULES[what]
    sound = "from jina_asgi import Executor\nclass Model(Executor): pass\n"
    module = tmp_path / "broken_model.py"
    module.write_text(sound)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        from broken_model import Model  # type: ignore[import-not-found]  # written above

        module.write_text(f"{code}\n{sound}")
        with pytest.raises(ExecutorError, match=message):
            async with ReplicaPool(Model, replicas=3):
                raise AssertionError
    finally:
        sys.modules.pop("broken_model", None)


# -- which classes, and what they are told


def test_a_class_made_in_a_function_is_refused() -> None:
    class Local(Executor):
        @requests
        def answer(self, docs: list[Word]) -> list[Word]:
            return docs

    with pytest.raises(DefinitionError, match=r"<locals>\.Local cannot be imported again by another process"):
        ReplicaPool(Local, replicas=1)


@pytest.mark.parametrize(
    "value", [lambda: None, {"deep": [1, object()]}, {1, 2}, Path()], ids=["function", "object", "set", "path"]
)
def test_an_option_that_cannot_cross_is_refused_by_name(value: Any) -> None:
    with pytest.raises(DefinitionError, match=r"uses_with.*tokenizer"):
        ReplicaPool(Worker, replicas=1, uses_with={"fine": 1, "tokenizer": value})


SCRIPT = """
import asyncio
from jina_asgi import ReplicaPool, Executor, requests
from pydantic import BaseModel

class Word(BaseModel):
    text: str = ""

class Upper(Executor):
    @requests
    def upper(self, doc: Word) -> Word:
        return Word(text=doc.text.upper())

async def main():
    async with ReplicaPool(Upper, replicas=1) as pool:
        print("answer:", (await pool.call("/", Word(text="hello")))[0].text)
"""
GUARDED = f"{SCRIPT}\nif __name__ == '__main__':\n    asyncio.run(main())\n"
BARE = f"{SCRIPT}\nasyncio.run(main())\n"


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_class_in_the_script_that_runs_is_found(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(GUARDED)
    ran = python("script.py", cwd=tmp_path)
    assert (ran.stdout, ran.returncode) == ("answer: HELLO\n", 0), ran.stderr


def test_a_class_in_a_module_that_runs_is_found(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(GUARDED)
    ran = python("-m", "program", cwd=tmp_path)
    assert (ran.stdout, ran.returncode) == ("answer: HELLO\n", 0), ran.stderr


def test_a_script_that_starts_without_asking_whether_it_is_the_program_ends_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(BARE)
    ran = python("script.py", cwd=tmp_path)
    assert ran.returncode == 1
    assert "__main__" in ran.stderr.splitlines()[-1]


def test_a_class_in_an_interactive_session_is_refused() -> None:
    ran = python("-c", BARE)
    assert ran.returncode == 1
    assert "Upper was defined in an interactive session" in ran.stderr


# -- environment and output


async def test_the_environment_is_set_before_the_module_is_imported() -> None:
    async with ReplicaPool(Worker, replicas=1, env={"GREETING": "hello"}) as pool:
        assert "hello" == (await pool.call("/environment", Word(text="GREETING")))[0].text


async def test_each_replica_has_its_device_and_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_TOTAL_DEVICES", "2")
    async with ReplicaPool(Worker, replicas=2, env={"CUDA_VISIBLE_DEVICES": "RR"}) as pool:

        def devices() -> list[str]:
            return [variable(pid, "CUDA_VISIBLE_DEVICES") for pid in pids(pool)]

        before = await all_up(pool)
        assert devices() == ["0", "1"]
        for at in (0, 1, 0):
            await ended(pool, before[at])
            before = await all_up(pool)
            assert devices() == ["0", "1"]
            assert (await pool.call("/environment", Word(text="CUDA_VISIBLE_DEVICES")))[0].text in ("0", "1")


def variable(pid: int, name: str) -> str:
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(entry.decode().split("=", 1) for entry in entries if entry)[name]


class Lines:
    """In place of standard error: what is written there, up to a bound, and how much it was."""

    def __init__(self) -> None:
        self.size, self.text = 0, ""

    def write(self, text: str) -> None:
        self.size += len(text)
        self.text += text if len(self.text) < 1_000_000 else ""

    def flush(self) -> None:
        return


async def test_a_flood_of_bytes_without_a_line_blocks_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines()
    monkeypatch.setattr(sys, "stderr", lines)  # where the process writes is what is tested
    size = 10_000_000
    async with ReplicaPool(Worker, replicas=1, name="loud") as pool:
        shouting = asyncio.create_task(pool.call("/shout", Number(value=size)))
        await pid_of(pool)
        async with asyncio.timeout(PATIENCE):
            assert size == (await shouting)[0].value
    assert lines.size > size
    assert all(line.startswith("[loud/rep-0] ") for line in lines.text.splitlines()[:-1])
    assert max(map(len, lines.text.splitlines())) < 50_000
    assert all(character.isprintable() or character in "\n\t" for character in lines.text)


async def test_a_printed_line_has_the_replicas_name_and_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines()
    monkeypatch.setattr(sys, "stderr", lines)  # where the process writes is what is tested
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    async with ReplicaPool(Worker, replicas=1, name="talker") as pool:
        await pool.call("/say", Word(text="good day\n\x1b[2Jforged \u202etxt"))
        await until(lambda: "forged" in lines.text, within=2.0)
    assert "[talker/rep-0] good day\n[talker/rep-0] \\x1b[2Jforged \\u202etxt\n" in lines.text


# -- nothing is left


PARENT = """
import asyncio
from jina_asgi import ReplicaPool
from tests.doubles.replica_executors import Number, Order, {uses}

async def main():
    async with ReplicaPool({uses}, replicas=2) as pool:
        child = (await pool.call("/start_child", Number()))[0].value
        {work}
        while None in (pids := [seat["pid"] for seat in pool.runner.status()["replicas"].values()]):
            await asyncio.sleep(0.01)
        print(child, *pids, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
WORK = {
    "idle": "",
    "holding the interpreter": (
        "tasks = [asyncio.create_task(pool.call('/hold_interpreter', Order(pause=60))) for _ in range(2)]\n"
        "        await asyncio.sleep(0.5)"
    ),
}


@pytest.mark.parametrize("doing", WORK)
@pytest.mark.parametrize("uses", ["Worker", "Stubborn"])
def test_replicas_and_their_children_end_with_a_parent_that_is_killed(doing: str, uses: str) -> None:
    code = PARENT.format(uses=uses, work=WORK[doing])
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        family = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(family) == 3
        parent.kill()
        parent.wait()
        end = time.monotonic() + 2.0
        while any(map(runs, family)) and time.monotonic() < end:
            time.sleep(0.01)  # nobody tells whose children they were not
        left = [pid for pid in family if runs(pid)]
        kill(*left)
        assert not left


@pytest.mark.parametrize("uses", [Worker, Stubborn])
async def test_the_children_of_an_executor_end_with_it(uses: type[Worker]) -> None:
    async with ReplicaPool(uses, replicas=1) as pool:
        children = [(await pool.call("/start_child", Number()))[0].value]
        if uses is Stubborn:
            children.append((await pool.call("/child", Number()))[0].value)
        assert all(map(runs, children))
    await until(lambda: not any(map(runs, children)), within=2.0)  # killed by then, and gone a moment later


async def test_nothing_is_left_after_lifespans_and_deaths() -> None:
    def held() -> tuple[int, int, int, int]:
        gc.collect()
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return len(os.listdir("/proc/self/fd")), threading.active_count(), len(asyncio.all_tasks()), len(children)

    async def life() -> None:
        async with ReplicaPool(Worker, replicas=1) as pool:
            with pytest.raises(ReplicaDied):
                await pool.call("/die", Word(text="killed"))

    await life()  # what is made once for the process
    before = held()
    for _ in range(4):
        await life()
    after = held()
    assert (after[0], after[2:]) == (before[0], before[2:])
    assert after[1] <= before[1] + 3  # asyncio's own threads, of which there are a few at most


async def test_nothing_is_left_of_a_start_that_was_cancelled_at_any_moment() -> None:
    def held() -> tuple[int, int, list[str]]:
        gc.collect()
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks()), children

    async def cancelled(turns: int, seconds: float = 0.0) -> None:
        pool = ReplicaPool(Worker, replicas=1)
        opening = asyncio.create_task(pool.__aenter__())
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.sleep(seconds)
        opening.cancel()
        await asyncio.wait([opening])
        if not opening.cancelled():  # it was up before
            await pool.__aexit__()

    await cancelled(100)
    before = held()
    for turns in range(12):
        await cancelled(turns)
    for tenths in range(1, 10):  # a replica takes about a second
        await cancelled(0, tenths / 10)
    assert held() == before


# -- recycling


async def test_replicas_that_have_served_their_time_are_replaced_and_no_call_fails() -> None:
    async with ReplicaPool(Worker, replicas=2, max_requests=20, heartbeat=1.0) as pool:
        before = await all_up(pool)
        gate = asyncio.Semaphore(8)

        async def call(number: int) -> str:
            async with gate:
                return await outcome(pool, "/once", Order(name=str(number), pause=0.02))

        assert await asyncio.gather(*(call(number) for number in range(300))) == ["right"] * 300
        await until(lambda: not set(before) & set(pids(pool)))
        assert status(pool)["lost"] == status(pool)["moved"] == 0


async def test_a_replica_that_has_grown_is_replaced() -> None:
    async with ReplicaPool(Worker, replicas=1) as pool:
        cap = resident(await pid_of(pool)) + 150_000_000
    async with ReplicaPool(Worker, replicas=1, max_rss=cap, heartbeat=1.0) as pool:
        first = await pid_of(pool)
        await pool.call("/grow", Number(value=250_000_000))
        await until(lambda: pids(pool) != [first])
        assert await pid_of(pool) != first


async def test_a_replica_that_is_too_large_as_soon_as_it_has_loaded_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    """Another would be no smaller; to replace it again and again would load models for ever."""
    async with ReplicaPool(Worker, replicas=1, max_rss=1_000_000, heartbeat=1.0) as pool:
        first = await pid_of(pool)
        await asyncio.sleep(2.0)  # four looks at it
        assert await pid_of(pool) == first
        assert seats(pool)[0]["restarts"] == 0
    assert "MB when it has just loaded, and max_rss is 1 MB" in caplog.text


async def test_a_call_that_outlasts_its_replicas_grace_never_runs_twice(journal: Journal) -> None:
    async with ReplicaPool(Worker, replicas=1, max_requests=1, heartbeat=1.0, grace=0.5, env=journal.env) as pool:
        (first,) = await all_up(pool)
        call = asyncio.create_task(outcome(pool, "/once_async", Order(name="long", pause=60)))
        await noted(journal, "began long")
        await pid_of(pool)  # the call that it was due after
        await pid_of(pool)
        assert await asyncio.wait_for(call, PATIENCE) == "ReplicaDied"
        assert pids(pool) != [first]
        assert journal.so_far() == ["began long"]


async def test_a_call_at_a_replica_that_is_replaced_ends_with_the_lifespan(journal: Journal) -> None:
    pool = ReplicaPool(Worker, replicas=1, max_requests=1, heartbeat=1.0, grace=3.0, env=journal.env)
    async with pool:
        (first,) = await all_up(pool)
        call = asyncio.create_task(outcome(pool, "/once_async", Order(name="long", pause=60)))
        await noted(journal, "began long")
        await pid_of(pool)
        await pid_of(pool)
        await until(lambda: pids(pool) != [first])
        leaving = asyncio.create_task(pool.__aexit__(None, None, None))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert await asyncio.wait_for(call, 5.0) in ("ReplicaDied", "NotReady")


# -- streams


async def test_a_stream_whose_replica_dies_gives_what_came_and_then_the_error() -> None:
    async with ReplicaPool(Worker, replicas=1) as pool:
        (pid,) = await all_up(pool)
        came: list[int] = []
        async with aclosing(pool.stream("/count", Order(pause=60), {"n": 3})) as numbers:
            while len(came) < 3:
                came.append((await anext(numbers)).value)
            kill(pid)
            with pytest.raises(ReplicaDied):
                await anext(numbers)
        assert came == [0, 1, 2]


async def test_a_stream_that_began_but_gave_nothing_is_not_begun_again(journal: Journal) -> None:
    async with ReplicaPool(Worker, replicas=1, env=journal.env) as pool:
        (pid,) = await all_up(pool)
        stream = pool.stream("/count", Order(name="s"), {"n": 3, "first": 60})
        step = asyncio.create_task(anext(stream))
        await noted(journal, "began s")
        kill(pid)
        with pytest.raises(ReplicaDied):
            await step


async def test_a_stream_that_had_not_begun_runs_elsewhere() -> None:
    async with ReplicaPool(Worker, replicas=1) as pool:
        (pid,) = await all_up(pool)
        kill(pid, by=signal.SIGSTOP)
        stream = pool.stream("/count", Order(), {"n": 3})
        first = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.05)  # it is sent, and read by nobody
        kill(pid)
        assert (await first).value == 0
        assert [number.value async for number in stream] == [1, 2]


async def test_a_stream_closed_early_gives_its_place_back(journal: Journal) -> None:
    async with ReplicaPool(Worker, replicas=1, env=journal.env) as pool:
        for name in "abcd":  # more than there are places
            async with aclosing(pool.stream("/count", Order(name=name, pause=60), {"n": 3})) as numbers:
                assert (await anext(numbers)).value == 0
            await noted(journal, f"closed {name}")
        assert seats(pool)[0]["in_flight"] == 0
        assert await outcome(pool, "/once", Order(name="x")) == "right"


async def test_an_error_that_a_stream_ends_with_is_not_hidden_by_a_later_death() -> None:
    async with ReplicaPool(Worker, replicas=1) as pool:
        (pid,) = await all_up(pool)
        stream = pool.stream("/count", Order(), {"n": 1, "first": 0, "wrong": 1})
        assert (await anext(stream)).value == 0
        await pid_of(pool)  # by now the error has come
        kill(pid)
        await until(lambda: pids(pool) != [pid])
        with pytest.raises(ExecutorError):
            await anext(stream)


# -- ends in every state


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_lifespan_ends_while_its_replica_loads(cancelled: bool, journal: Journal) -> None:
    slow = ReplicaPool(Slow, replicas=1, uses_with={"seconds": 60}, env=journal.env)
    opening = asyncio.create_task(slow.__aenter__())
    await noted(journal, "loading")
    start = time.monotonic()
    opening.cancel()
    await asyncio.wait([opening])
    assert opening.cancelled()
    assert time.monotonic() - start < 2.0


async def test_a_lifespan_ends_while_a_replica_waits_to_be_started_again() -> None:
    async with ReplicaPool(Worker, replicas=1) as pool:
        with pytest.raises(ReplicaDied):
            await pool.call("/die", Word(text="killed"))
        await until(lambda: seats(pool)[0]["state"] == "waiting")
        start = time.monotonic()
    assert time.monotonic() - start < 2.0


async def test_a_call_that_waits_for_a_replica_ends_with_the_lifespan() -> None:
    pool = ReplicaPool(Worker, replicas=1, grace=0.0)
    async with pool:
        with pytest.raises(ReplicaDied):
            await pool.call("/die", Word(text="killed"))
        waiting = asyncio.create_task(pid_of(pool))
        await asyncio.sleep(0)
    with pytest.raises(NotReady):
        await waiting
    async with pool:
        assert await pid_of(pool)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_lifespan_ends_while_a_replica_hangs(cancelled: bool) -> None:
    pool = ReplicaPool(Worker, replicas=1, grace=0.5)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def life() -> None:
        async with pool:
            entered.set()
            await leave.wait()

    living = asyncio.create_task(life())
    await entered.wait()
    pid = await pid_of(pool)
    kill(pid, by=signal.SIGSTOP)
    call = asyncio.create_task(outcome(pool, "/once", Order(name="x")))
    await asyncio.sleep(0)
    start = time.monotonic()
    if cancelled:
        living.cancel()
    else:
        leave.set()
    await asyncio.wait([living])
    assert await call == "NotReady"
    assert time.monotonic() - start < (3.0 if cancelled else 13.0)
    assert not runs(pid)


# -- who waits


async def test_a_deadline_passes_while_its_call_waits_for_a_place(journal: Journal) -> None:
    async with ReplicaPool(Worker, replicas=1, env=journal.env) as pool:
        held = [asyncio.create_task(outcome(pool, "/once", Order(name=f"h{i}", pause=2.0))) for i in range(2)]
        await noted(journal, "began h0")
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await pool.call("/once", Order(name="late"), context=Context(deadline=start + 0.3))
        assert time.monotonic() - start < 1.3
        assert await asyncio.gather(*held) == ["right"] * 2
        assert "began late" not in journal.so_far()


async def test_a_cancelled_call_leaves_the_queue(journal: Journal) -> None:
    async with ReplicaPool(Worker, replicas=1, env=journal.env) as pool:
        held = [asyncio.create_task(outcome(pool, "/once", Order(name=f"h{i}", pause=1.0))) for i in range(2)]
        await noted(journal, "began h0")
        waiting = asyncio.create_task(outcome(pool, "/once", Order(name="left")))
        behind = asyncio.create_task(outcome(pool, "/once", Order(name="behind")))
        await asyncio.sleep(0)
        waiting.cancel()
        assert await asyncio.gather(*held, behind) == ["right"] * 3
        assert waiting.cancelled()
        assert "began left" not in journal.so_far()
        assert seats(pool)[0]["in_flight"] == 0


async def test_an_error_of_the_executor_is_an_answer_too(caplog: pytest.LogCaptureFixture) -> None:
    """So that a replica which only ever refused, and then dies, was no failed start."""
    caplog.set_level(logging.ERROR, "jina_asgi")
    async with ReplicaPool(Worker, replicas=1) as pool:
        for _ in range(3):
            with pytest.raises(ExecutorError):
                await pool.call("/exit", Word())
            await ended(pool, *await all_up(pool))
        await all_up(pool)
    waits = [record.args[-1] for record in caplog.records if "starting again" in record.getMessage()]  # type: ignore[index]
    assert len(waits) == 3
    assert all(wait <= 0.5 for wait in waits)  # type: ignore[operator]
