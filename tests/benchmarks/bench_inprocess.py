"""What the library costs with no server: one document through the Runners, and through the ASGI application.

python tests/benchmarks/bench_inprocess.py --seconds 0.1 --rounds 15
"""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

import uvloop
from micro import Pair, awaited, parser, table
from serve_jina_asgi import Text, Work
from serve_starlette import ROUTES
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Scope

from jina_asgi import Deployment, JinaASGI
from jina_asgi.documents.codec import codec
from jina_asgi.protocols.frames.pipe import pipe_pair
from jina_asgi.types import Call

BODY = b'{"data":[{"text":"0123456789abcdef0123456789abcdef"}]}'


async def ask(app: ASGIApp, path: str) -> None:
    """One request as a server would bring it, and its answer checked."""
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    messages: list[Message] = []
    left = [{"type": "http.request", "body": BODY, "more_body": False}]

    async def receive() -> Message:
        return left.pop() if left else await asyncio.Future()

    async def send(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, send)
    assert messages[0]["status"] == 200
    assert messages[1]["body"].startswith(BODY[:-1])


async def call(runner, docs, on: str) -> None:
    """One call as a protocol makes it: admitted, called, its ticket closed."""
    ticket = runner.admit(on)
    try:
        await runner.call(Call(on, docs))
    finally:
        ticket.close()


async def start(stack: AsyncExitStack) -> list[Pair]:
    loop = asyncio.get_running_loop()
    timed = partial(awaited, loop)
    deployment = await stack.enter_async_context(Deployment(uses=Work))
    runner = deployment.runner
    piped = pipe_pair(Deployment(uses=Work).runner, endpoints=runner.endpoints)
    await stack.enter_async_context(piped.lifespan())
    app = JinaASGI(Work)
    await stack.enter_async_context(app.lifespan(app))
    starlette = Starlette(routes=[Route("/run", ROUTES["echo"], methods=["POST"])])

    work = Work()
    texts = [Text(text="hello")]
    docs = codec(runner.endpoints["/echo"].input).docs(texts)
    direct = timed(lambda: work.echo(texts))
    stacked = timed(lambda: call(runner, docs, "/echo"))
    in_executor = timed(lambda: loop.run_in_executor(None, work.echo_sync, texts))
    return [
        Pair("the Runners, async endpoint", stacked, "the method itself", direct),
        Pair(
            "the Runners, sync endpoint",
            timed(lambda: call(runner, docs, "/echo_sync")),
            "run_in_executor",
            in_executor,
        ),
        Pair("Deployment.call", timed(lambda: deployment.call("/echo", texts)), "the method itself", direct),
        Pair("pipe pair", timed(lambda: call(piped, docs, "/echo")), "the Runners", stacked),
        Pair("ASGI application", timed(lambda: ask(app, "/echo")), "Starlette", timed(lambda: ask(starlette, "/run"))),
    ]


if __name__ == "__main__":
    options = parser(__doc__).parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runs:
        stack = AsyncExitStack()
        pairs = runs.run(start(stack))
        print(table("One document in this process", pairs, options), flush=True)
        runs.run(stack.aclose())
