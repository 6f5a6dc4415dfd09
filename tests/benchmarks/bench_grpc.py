"""gRPC, side by side in one run: a bare grpc.aio server with the same messages, ours, and a real Jina Deployment.

`python tests/benchmarks/bench_grpc.py [--seconds 3] [--rounds 3]`. One client for all of them, that speaks bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
import numpy as np
from docarray import BaseDoc
from docarray.typing import NdArray

from jina_asgi.codecs import codec
from jina_asgi.protocols.protobuf import requests
from jina_asgi.schemas import schema_of
from tests.serving import free_port

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
JINA = Path(os.environ.get("JINA_ASGI_BENCH", CACHE / "jina-asgi-bench")) / "jina" / "bin" / "python"
POST = "/jina.JinaSingleDataRequestRPC/process_single_data"
STREAM = "/jina.JinaSingleDocumentRequestRPC/stream_doc"
TOKENS = 200


class Text(BaseDoc):
    text: str = ""


class Vector(BaseDoc):
    vector: NdArray


def message(on: str, docs: Sequence[BaseDoc]) -> bytes:
    found = codec(schema_of(type(docs[0]))).docs(list(docs))
    return bytes(requests.request(on, found, {}, request_id="r").SerializeToString())


def streaming() -> bytes:
    docs = codec(schema_of(Text)).docs([Text(text="q")])
    return bytes(requests.single("/tokens", docs, {}, request_id="r").SerializeToString())


async def asked(port: int, method: str, raw: bytes, callers: int, seconds: float, *, stream: bool) -> float:
    """Calls, or documents of streams, a second."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", (("grpc.max_receive_message_length", -1),)) as channel:
        ask = channel.unary_stream(method) if stream else channel.unary_unary(method)
        done, end = 0, time.perf_counter() + seconds

        async def caller() -> None:
            nonlocal done
            while time.perf_counter() < end:
                if stream:
                    call = ask(raw)
                    while await call.read() is not grpc.aio.EOF:
                        done += 1
                else:
                    await ask(raw)
                    done += 1

        await caller_once(ask, raw, stream=stream)
        began = time.perf_counter()
        end = began + seconds
        await asyncio.gather(*(caller() for _ in range(callers)))
        return done / (time.perf_counter() - began)


async def caller_once(ask, raw: bytes, *, stream: bool) -> None:
    if stream:
        call = ask(raw)
        while await call.read() is not grpc.aio.EOF:
            pass
    else:
        await ask(raw)


def processor_time(pid: int) -> float:
    """Seconds that a process has computed for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def started(python: Path | str, kind: str, port: int) -> subprocess.Popen:
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    process = subprocess.Popen(
        [str(python), str(HERE / "serve_grpc.py"), kind, str(port)],
        env=clean if kind == "jina" else None,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "serving":
            return process
    raise RuntimeError(f"{kind} did not start")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    vectors = [Vector(vector=np.random.default_rng(n).random(768, np.float32)) for n in range(64)]
    loads = {
        "echo, 1 doc": (POST, message("/echo", [Text(text="hi")]), 16, False),
        "64 docs x 768 floats": (POST, message("/vectors", vectors), 4, False),
        "streams of 200 tokens": (STREAM, streaming(), 8, True),
    }
    kinds = ["bare", "ours", *(["jina"] if JINA.exists() else [])]
    ports = {kind: free_port() for kind in kinds}
    running = [started(JINA if kind == "jina" else sys.executable, kind, port) for kind, port in ports.items()]
    try:
        for name, (method, raw, callers, stream) in loads.items():
            rates: dict[str, list[float]] = {kind: [] for kind in kinds}
            costs: dict[str, list[float]] = {kind: [] for kind in kinds}
            for _ in range(options.rounds):
                for kind, process in zip(kinds, running, strict=True):
                    before = processor_time(process.pid)
                    rates[kind].append(
                        asyncio.run(asked(ports[kind], method, raw, callers, options.seconds, stream=stream))
                    )
                    spent = processor_time(process.pid) - before
                    costs[kind].append(spent / (rates[kind][-1] * options.seconds))
            middle = {kind: statistics.median(found) for kind, found in rates.items()}
            told = ", ".join(f"{kind} {rate:.0f}/s" for kind, rate in middle.items())
            against = f"; {middle['ours'] / middle['jina']:.1f} x Jina" if "jina" in middle else ""
            cost = statistics.median(costs["bare"]) / statistics.median(costs["ours"])
            ratio = f"{middle['ours'] / middle['bare']:.2f} of bare ({cost:.2f} by the server's processor time)"
            print(f"{name}: {told}: {ratio}{against}", flush=True)
    finally:
        for process in running:
            os.killpg(process.pid, 9)
            process.communicate()


if __name__ == "__main__":
    main()
