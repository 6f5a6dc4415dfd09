"""The Executors that the tests of replicas run; replicas import them from here."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from jina_asgi import Executor, dynamic_batching, requests
from tests.doubles.rig import note

#: What the environment held when this module was imported.
ON_IMPORT = dict(os.environ)


class Word(BaseModel):
    text: str = ""


class Number(BaseModel):
    value: int = 0


class Order(BaseModel):
    """What to do: `name` is noted as the work begins, and `pause` seconds pass."""

    name: str = ""
    pause: float = 0.0


def hold_the_interpreter(seconds: float) -> None:
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


def die(how: str) -> None:
    match how:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(0)
        case "abort":
            os.abort()
        case "segfault":
            ctypes.string_at(0)
        case "real-time signal":
            os.kill(os.getpid(), signal.SIGRTMIN + 5)


class Worker(Executor):
    """Does as it is told."""

    @requests(on="/pid", idempotent=True)
    async def pid(self, docs: list[Number]) -> list[Number]:
        return [Number(value=os.getpid()) for _ in docs]

    @requests(on="/again", idempotent=True)
    def again(self, doc: Order) -> Word:
        return self._work(doc)

    @requests(on="/once")
    def once(self, doc: Order) -> Word:
        return self._work(doc)

    @requests(on="/once_async")
    async def once_async(self, doc: Order) -> Word:
        note(f"began {doc.name}")
        await asyncio.sleep(doc.pause)
        return Word(text=doc.name.upper())

    def _work(self, doc: Order) -> Word:
        note(f"began {doc.name}")
        time.sleep(doc.pause)
        return Word(text=doc.name.upper())

    @requests(on="/die")
    def die(self, doc: Word) -> Word:
        die(doc.text)
        return doc

    @requests(on="/die_again", idempotent=True)
    def die_again(self, doc: Word) -> Word:
        note(f"dying {os.getpid()}")
        die(doc.text)
        return doc

    @requests(on="/exit")
    def exit(self, doc: Word) -> Word:
        sys.exit(3)

    @requests(on="/exit_async")
    async def exit_async(self, doc: Word) -> Word:
        sys.exit(3)

    @requests(on="/interrupt")
    def interrupt(self, doc: Word) -> Word:
        raise KeyboardInterrupt

    @requests(on="/interrupt_async")
    async def interrupt_async(self, doc: Word) -> Word:
        raise KeyboardInterrupt

    @requests(on="/hold_interpreter")
    def hold(self, doc: Order) -> Word:
        note(f"holding {doc.name}")
        hold_the_interpreter(doc.pause)
        return Word()

    @requests(on="/start_child")
    def start_child(self, doc: Number) -> Number:
        return Number(value=subprocess.Popen(["sleep", "100"]).pid)

    @requests(on="/environment")
    def environment(self, doc: Word) -> Word:
        return Word(text=ON_IMPORT.get(doc.text, ""))

    @requests(on="/shout")
    def shout(self, doc: Number) -> Number:
        """Write so many bytes, of every value but a line's end."""
        block = bytes(value for value in range(256) if value != ord("\n")) * 4096
        written = 0
        while written < doc.value:
            written += os.write(1, block[: doc.value - written])
        return Number(value=written)

    @requests(on="/say")
    def say(self, doc: Word) -> Word:
        print(doc.text)
        return doc

    @requests(on="/grow")
    def grow(self, doc: Number) -> Number:
        kept = self.__dict__.setdefault("kept", [])
        kept.append(b"x" * doc.value)
        return Number(value=os.getpid())

    @requests(on="/count")
    async def count(self, doc: Order, parameters: dict[str, Any]) -> AsyncGenerator[Number, None]:
        note(f"began {doc.name}")
        await asyncio.sleep(parameters.get("first", 0))
        try:
            for value in range(parameters["n"]):
                yield Number(value=value)
            if parameters.get("wrong"):
                raise ValueError("wrong")
            await asyncio.sleep(doc.pause)
        finally:
            note(f"closed {doc.name}")


class Parent(Executor):
    """Starts processes in every way, and says what became of them and of what they had from this one."""

    @requests(on="/forked")
    def forked(self, doc: Number) -> Number:
        """The exit code of a child that was terminated; by which signal is asked."""
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        os.kill(child.pid or 0, doc.value)
        child.join()
        return Number(value=child.exitcode or 0)

    @requests(on="/forked_async")
    async def forked_async(self, doc: Number) -> Number:
        return self.forked(doc)

    @requests(on="/forked_wrapped")
    async def forked_wrapped(self, doc: Number) -> Number:
        """As `/forked`, where a library has replaced the signal's handler by its own, which ends in the former one."""
        former = signal.getsignal(doc.value)

        def wrapper(number: int, frame: object) -> None:
            signal.signal(number, former)
            signal.raise_signal(number)

        signal.signal(doc.value, wrapper)
        try:
            return self.forked(doc)
        finally:
            signal.signal(doc.value, former)

    @requests(on="/pool")
    def pool(self, doc: Number) -> Number:
        with multiprocessing.get_context("fork").Pool(2) as children:
            return Number(value=sum(children.map(abs, range(doc.value))))

    @requests(on="/run")
    def run(self, doc: Number) -> Number:
        """The exit code of a program that a signal was sent to."""
        child = subprocess.Popen([sys.executable, "-c", "print(flush=True); import time; time.sleep(60)"], stdout=-1)
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(doc.value)
        return Number(value=child.wait())

    @requests(on="/run_async")
    async def run_async(self, doc: Number) -> Number:
        child = await asyncio.create_subprocess_exec("sleep", "60")
        child.send_signal(doc.value)
        return Number(value=await child.wait())

    @requests(on="/inherited")
    def inherited(self, doc: Number) -> Number:
        """How many descriptors a program has from here, beside the standard three."""
        found = subprocess.run(["ls", "/proc/self/fd"], capture_output=True, close_fds=False, check=True)
        return Number(value=len(found.stdout.split()) - 4)  # one is of the listing itself

    @requests(on="/leave_behind")
    def leave_behind(self, doc: Number) -> Number:
        """A child in a session of its own has all that this process has; then this one dies."""
        if not os.fork():
            os.setsid()
            time.sleep(20)
            os._exit(0)
        os._exit(5)


class Talker(Executor):
    """Logs and fails."""

    @requests(on="/fail")
    def fail(self, doc: Word) -> Word:
        return self._fail(doc)

    @requests(on="/fail_async")
    async def fail_async(self, doc: Word) -> Word:
        return self._fail(doc)

    @dynamic_batching(preferred_batch_size=4)
    @requests(on="/fail_batched")
    def fail_batched(self, docs: list[Word]) -> list[Word]:
        return [self._fail(doc) for doc in docs]

    @requests(on="/log")
    def log(self, doc: Word) -> Word:
        logger = logging.getLogger("talker")
        logger.debug("debug %s", doc.text)
        logger.info("info %s", doc.text)
        logging.getLogger("quiet").warning("warning %s", doc.text)
        return doc

    def _fail(self, doc: Word) -> Word:
        raise ValueError(doc.text)


class Failing(Executor):
    """Fails to load, until there are so many lines in the file `starts`."""

    def __init__(self, starts: str, times: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with Path(starts).open("a") as file:
            file.write(f"{os.getpid()}\n")
        if len(Path(starts).read_text().splitlines()) <= times:
            raise ValueError("no such model: grumpy-cat")

    @requests(on="/pid", idempotent=True)
    async def pid(self, docs: list[Number]) -> list[Number]:
        return [Number(value=os.getpid()) for _ in docs]


class Dying(Executor):
    """Its process ends while it loads."""

    def __init__(self, how: str = "exit", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        die(how)

    @requests
    async def never(self, docs: list[Word]) -> list[Word]:
        return docs


class Slow(Executor):
    """Takes so many seconds to load."""

    def __init__(self, seconds: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        note("loading")
        time.sleep(seconds)

    @requests(on="/pid")
    async def pid(self, docs: list[Number]) -> list[Number]:
        return docs


class Stubborn(Worker):
    """Starts a child that ignores requests to end."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.child = subprocess.Popen([sys.executable, "-c", _IGNORES], stdout=subprocess.PIPE)
        assert self.child.stdout is not None
        self.child.stdout.readline()

    @requests(on="/child")
    async def child_pid(self, doc: Number) -> Number:
        return Number(value=self.child.pid)


_IGNORES = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(100)
"""
