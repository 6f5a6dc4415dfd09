"""What a Flow costs with no server: one more node in a chain, a diamond beside the time that its nodes take.

python tests/benchmarks/bench_flow.py --seconds 0.1 --rounds 15
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from functools import partial

import uvloop
from bench_inprocess import call
from micro import Pair, awaited, parser, table
from serve_jina_asgi import Text, Work

from jina_asgi import Deployment, Executor, Flow, requests
from jina_asgi.documents.codec import codec
from jina_asgi.types import Call, Docs, Runner

WAIT = 0.01  # seconds


class Waiting(Executor):
    @requests(on="/wait")
    async def wait(self, docs: list[Text]) -> list[Text]:
        await asyncio.sleep(WAIT)
        return docs


class Tokens(Executor):
    @requests(on="/tokens")
    async def tokens(self, doc: Text) -> AsyncIterator[Text]:
        for _ in range(3):
            await asyncio.sleep(WAIT)
            yield doc


class Upper(Executor):
    @requests(on="/tokens")
    async def upper(self, docs: list[Text]) -> list[Text]:
        return [Text(text=doc.text.upper()) for doc in docs]


async def first(runner: Runner, docs: Docs) -> None:
    async with aclosing(runner.stream(Call("/tokens", docs))) as steps:
        await anext(steps)


def chain(length: int) -> Flow:
    flow = Flow()
    for _ in range(length):
        flow = flow.add(uses=Work)
    return flow


def diamond() -> Flow:
    flow = Flow().add(uses=Waiting, name="a")
    return (
        flow.add(uses=Waiting, name="b", needs="a")
        .add(uses=Waiting, name="c", needs="a")
        .add(uses=Waiting, name="d", needs=["b", "c"])
    )


async def start(stack: AsyncExitStack) -> list[Pair]:
    timed = partial(awaited, asyncio.get_running_loop())
    deployment, *chains = [
        (await stack.enter_async_context(source)).runner
        for source in (Deployment(uses=Work), chain(1), chain(2), chain(10))
    ]
    branched = (await stack.enter_async_context(diamond())).runner
    lm, mapped = [
        (await stack.enter_async_context(source)).runner
        for source in (Deployment(uses=Tokens), Flow().add(uses=Tokens).add(uses=Upper))
    ]
    prompt = codec(lm.endpoints["/tokens"].input).docs([Text(text="hello")])
    docs = codec(deployment.endpoints["/echo"].input).docs([Text(text="hello")])
    alone = timed(lambda: call(deployment, docs, "/echo"))
    one, two, ten = (timed(partial(call, runner, docs, "/echo")) for runner in chains)
    return [
        Pair("a Flow of one node", one, "its Deployment", alone),
        Pair("a chain of two", two, "of one", one),
        Pair("a chain of ten", ten, "of one", one),
        Pair(
            "a diamond of nodes that wait 10 ms",
            timed(lambda: call(branched, docs, "/wait")),
            "three of them in turn",
            timed(in_turn),
        ),
        Pair(
            "the first token through a Flow that maps it",
            timed(lambda: first(mapped, prompt)),
            "of the generator alone, 10 ms a token",
            timed(lambda: first(lm, prompt)),
        ),
    ]


async def in_turn() -> None:
    for _ in range(3):
        await asyncio.sleep(WAIT)


if __name__ == "__main__":
    options = parser(__doc__).parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runs:
        stack = AsyncExitStack()
        pairs = runs.run(start(stack))
        print(table("One document through a Flow in this process", pairs, options), flush=True)
        runs.run(stack.aclose())
