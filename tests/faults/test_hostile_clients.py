"""Whatever hostile clients send, they get a short answer of 4xx, and those who ask beside them get what they asked for.

What each hostile body is answered with is in `test_hostile_input.py`; here all of them arrive on real connections.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import os
import pickle
import re
import time
import zlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from docarray import DocList

from jina_asgi import Executor, JinaASGI, requests
from tests.doubles.hostile_bodies import LARGE_AND_WRONG, NO_JSON, OTHER_FORMS
from tests.doubles.hostile_documents import Slow
from tests.doubles.uvicorn_server import serving
from tests.faults.wire import Residue, neighbours

JSON = "application/json"
BOMB = gzip.compress(b" " * 2**27, 9)


class Echo(Executor):
    """Every kind of endpoint."""

    @requests(on="/echo")
    async def echo(self, doc: Slow) -> Slow:
        return doc

    @requests(on="/batch")
    async def batch(self, docs: DocList[Slow]) -> DocList[Slow]:
        return docs

    @requests(on="/stream")
    async def stream(self, doc: Slow) -> AsyncGenerator[Slow, None]:
        yield doc


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def requests_of(canary: Path) -> list[dict[str, Any]]:
    """What httpx is given for each hostile request."""
    pickled = pickle.dumps(Canary(canary))
    media = ["application/octet-stream", "application/pickle", "application/x-pickle", "application/vnd.pickle"]
    media += ["application/msgpack", "application/x-protobuf", JSON, "text/plain", "application/x-numpy", ""]
    boundary = "multipart/form-data; boundary=b"
    part = b'--b\r\ncontent-disposition: form-data; name="a"; filename="../../x"\r\n\r\n\r\n'
    bodies = [(JSON, raw) for raw in (*NO_JSON.values(), *OTHER_FORMS, *LARGE_AND_WRONG.values())]
    bodies += [(kind, pickled) for kind in media]
    bodies += [(boundary, part * 10**5), ("multipart/form-data; boundary=" + "b" * 60_000, part), (boundary, part)]
    bodies += [("application/x-www-form-urlencoded", b"a=1&" * 10**5), ("text/plain", b'{"data":{}}')]
    found: list[dict[str, Any]] = [{"content": raw, "headers": {"content-type": kind}} for kind, raw in bodies]
    codings = {"gzip": BOMB, "deflate": zlib.compress(b" " * 2**20), "br": b"x", "zstd": b"x", "gzip, gzip": BOMB}
    codings |= {"identity, gzip": BOMB, "unknown": b"{}", "x" * 9000: b"{}"}
    for coding, raw in codings.items():
        found.append({"content": raw, "headers": {"content-type": JSON, "content-encoding": coding}})
    return found


async def test_hostile_bodies_are_4xx_and_harm_no_other_request(tmp_path: Path) -> None:
    """IN-04, IN-06, IN-08, IN-14, SEC-01, SEC-17, SEC-20: each body to each kind of endpoint, three at a time."""
    canary, answers = tmp_path / "canary", list[tuple[int, str]]()
    endpoints = ["/echo", "/batch", "/stream", "/post"]
    cases = itertools.product(endpoints, requests_of(canary))
    async with serving(JinaASGI(Echo), lifespan="on") as port:

        async def ask(http: httpx.AsyncClient) -> None:
            for endpoint, request in cases:
                answer = await http.post(endpoint, **request)
                answers.append((answer.status_code, answer.text))

        async with neighbours(port, "/echo", count=2) as ledger:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as http:
                async with asyncio.TaskGroup() as group:
                    for _ in range(3):
                        group.create_task(ask(http))
    assert {status for status, _ in answers} <= {400, 404, 413, 415, 422}
    assert max(len(text) for _, text in answers) < 20_000
    internals = re.compile(r"Traceback|File \"|/site-packages|/dev/shm|\.sock\b|0x[0-9a-f]{6}|pid")
    assert [text for _, text in answers if internals.search(text)] == []
    assert not canary.exists()
    assert ledger.others == []
    assert ledger.right > 0


PATHS = ["/nothing", "/" + "x" * 10_000, "/%00", "/%2e%2e/%2e%2e/etc/passwd", "/..%5c..%5c", "/echo%0d%0ax:1", "/écho"]
PATHS += ["/echo/", "/ECHO", "/__class__", "/-/pool", "/-/status/..", "/.git/config", "/echo;a=b", "/%ff%fe"]


@pytest.mark.parametrize("path", PATHS)
async def test_a_path_that_is_no_endpoint_is_404(path: str) -> None:
    """IN-12: whatever its form; nothing looks for it anywhere else."""
    async with serving(JinaASGI(Echo), lifespan="on") as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            answer = await http.post(path, json={"data": {}})
            assert answer.status_code in (400, 404)
            assert len(answer.content) < 1000
            assert (await http.post("/echo", json={"data": {"text": "x"}})).status_code == 200


async def test_a_bomb_costs_no_more_than_its_own_size() -> None:
    """IN-06: bodies are never inflated."""
    async with serving(JinaASGI(Echo), lifespan="on") as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            headers = {"content-type": JSON, "content-encoding": "gzip"}
            await http.post("/echo", content=BOMB, headers=headers)
            before, start = Residue.now(), time.process_time()
            resident = int(Path("/proc/self/statm").read_text().split()[1])
            for _ in range(20):
                assert (await http.post("/echo", content=BOMB, headers=headers)).status_code == 415
            assert time.process_time() - start < 2.0
            grown = int(Path("/proc/self/statm").read_text().split()[1]) - resident
            assert grown * os.sysconf("SC_PAGE_SIZE") < 64 * 2**20
            await Residue.settles(before)
