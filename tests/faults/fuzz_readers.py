"""Hostile bytes into everything that reads what a client or a file says: only our errors may come out, and soon.

    python tests/faults/fuzz_readers.py --texts 1000000 --seed 0

Bodies in JSON and msgpack, events of a stream, messages of a WebSocket, YAML of a Deployment and of a Flow; changed, cut,
repeated and spliced. The same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import httpx
import numpy as np
from docarray import BaseDoc
from docarray.typing import NdArray

from jina_asgi import Deployment, Flow
from jina_asgi.documents.msgpack import pack
from jina_asgi.documents.schemas import schema_of
from jina_asgi.errors import JinaASGIError, ProtocolError
from jina_asgi.protocols.http.asgi_transport import events
from jina_asgi.protocols.http.bodies import JSON, MSGPACK
from jina_asgi.protocols.websocket._messages import read as read_message
from tests.doubles.round_trips import bodies

#: Seconds that one text may take; none of them is longer than 64 KB.
SLOWEST = 1.0


class Doc(BaseDoc):
    text: str = ""
    number: int = 0
    share: float = 0.0
    vector: NdArray | None = None
    names: list[str] = []
    more: dict[str, float] = {}


BODIES = bodies(schema_of(Doc))


@dataclass(frozen=True)
class Target:
    """What reads, what it is given where nobody is hostile, and what means something to it."""

    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    words: Sequence[bytes]


async def _events(raw: bytes) -> list[object]:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(raw), 7):
            yield raw[start : start + 7]

    try:
        return [event async for event in events(httpx.Response(200, content=chunks()))]
    except ValueError as error:  # as it says; who reads makes an error of ours of it
        raise ProtocolError(str(error)) from error


JSON_WORDS = rb'{ } [ ] , : " null NaN 1e999 - \ud800 \u0000 99999999999999999999999999'.split()
PACK_WORDS = (*(bytes([code]) + b"\xff" * 4 for code in (198, 199, 201, 219, 221, 223)), b"\x91" * 99, b"\xc1", b"\x80")
YAML_WORDS = b"&a *a <<:*a ? --- ... ${{ENV.HOME}} ${{root.__class__}} $HOME !! %YAML : - { [ ' # | > @".split(b" ")
YAML_WORDS += [b"!!python/object/apply:os.system ['x']", b": ", b"- ", b"\t", b"\n", b"|\n", b"<<: *a\n", b'"']
DEPLOYMENT = b"""jtype: Deployment
version: '1'
with:
  name: encoder
  external: true
  host: ['http://127.0.0.1:1', 'http://127.0.0.1:2']
  timeout_send: 1000
  env: {CUDA_VISIBLE_DEVICES: RR}
  uses_with: {model: "$MODEL"}
  uses_dynamic_batching: {/default: {preferred_batch_size: 10, timeout: 200}}
"""
FLOW = b"""jtype: Flow
with: {name: two, port: 12345, protocol: http}
executors:
  - {name: a, external: true, host: 'http://127.0.0.1', port: 1}
  - name: b
    needs: [a]
    external: true
    host: http://127.0.0.1:2
    when: {tags__n: {$gt: 1}}
"""
DOC = {"text": "a", "number": 1, "share": 0.5, "vector": [1.0, 2.0], "names": ["x"], "more": {"y": 1.0}}
BODY = {"data": [DOC] * 2, "parameters": {"a": [1, None]}, "header": {"request_id": "x"}}
PACKED = {**BODY, "data": [{**DOC, "vector": np.ones(3, np.float32)}]}
COLUMNS = {"data": {"columns": {"text": ["a", "b"], "vector": np.ones((2, 3), np.float32)}}}
TARGETS = {
    "json": Target(
        lambda raw: BODIES.read(JSON, raw).docs.typed,
        (b'{"data":[{"text":"a","number":1,"vector":[1,2],"more":{"x":1}}],"parameters":{"a":1}}', b'{"data":{}}'),
        JSON_WORDS,
    ),
    "msgpack": Target(lambda raw: BODIES.read(MSGPACK, raw).docs.typed, (pack(PACKED), pack(COLUMNS)), PACK_WORDS),
    "events": Target(
        lambda raw: asyncio.run(_events(raw)),
        (
            b'event: update\r\ndata: {"a":1}\r\n\r\nevent: end\r\n\r\n',
            b": ping\r\n\r\ndata: [1,\ndata: 2]\n\nid: 1\n\n",
        ),
        (b"\r", b"\n", b"\r\n\r\n", b"data:", b"event:", b"\0", b"\xff", b"\xef\xbb\xbf", b"x" * 5000),
    ),
    "messages": Target(
        partial(read_message, values=1000),
        (b'{"id":1,"endpoint":"/x","data":{"text":"a"},"timeout":1.5}', b'{"id":"a","event":"cancel"}'),
        JSON_WORDS,
    ),
    "deployment": Target(lambda raw: Deployment.load_config(raw.decode("utf-8", "replace")), (DEPLOYMENT,), YAML_WORDS),
    "flow": Target(lambda raw: Flow.load_config(raw.decode("utf-8", "replace")), (FLOW,), YAML_WORDS),
}


def hostile(target: Target, dice: random.Random) -> bytes:
    """One text, changed one to four times."""
    text = bytearray(dice.choice(target.seeds))
    for _ in range(dice.randint(1, 4)):
        at, end = sorted((dice.randrange(len(text) + 1), dice.randrange(len(text) + 1)))
        match dice.randrange(6):
            case 0:
                text[at:end] = b""
            case 1:
                text[at:at] = dice.choice(target.words)
            case 2:
                text[at:end] = dice.choice(target.words)
            case 3:
                text[at:at] = text[at:end] * dice.choice((1, 2, 20))
            case 4 if at < len(text):
                text[at] = dice.randrange(256)
            case _:
                del text[at:]
    return bytes(text[: 1 << 16])


def fuzz(name: str, count: int, seed: int) -> Counter[str]:
    """What became of so many texts: "read", or the names of our errors.

    Raises:
        AssertionError: another error came out, or one took long; with the bytes that did it.
    """
    target, dice, seen = TARGETS[name], random.Random(f"{name} {seed}"), Counter[str]()
    for _ in range(count):
        raw, start = hostile(target, dice), time.process_time()
        try:
            target.read(raw)
            seen["read"] += 1
        except JinaASGIError as error:
            seen[type(error).__name__] += 1
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}; from {raw!r}") from error
        assert time.process_time() - start < SLOWEST, f"{name}: slow: {raw!r}"
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=100_000, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in TARGETS:
        print(name, dict(fuzz(name, options.texts, options.seed)))


if __name__ == "__main__":
    main()
