"""gRPC's load, by h2load: it costs a sixth of what a bare server does for an echo; a client of grpcio's, two thirds."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import grpc
from harness import Request, Row, Server, WrongAnswer

FRAME = 5  # bytes before each message


def ask(port: int, request: Request) -> bytes:
    """The messages of one answer, one after another."""
    return b"".join(messages(port, request))


def messages(port: int, request: Request) -> list[bytes]:
    with grpc.insecure_channel(f"127.0.0.1:{port}", (("grpc.max_receive_message_length", -1),)) as channel:
        try:
            return list(channel.unary_stream(request.path)(request.body, timeout=30))
        except grpc.RpcError as error:
            raise WrongAnswer(str(error)) from error


def calls(server: Server, at_once: int, seconds: float) -> Row:
    """Calls a second, `at_once` on one connection: as many as the bytes that came are those of right answers.

    So the part of a stream that came before the time was up counts, and wrong answers are seen.
    """
    request = server.system.request("load")
    size = sum(len(message) + FRAME for message in messages(server.port, request))
    body = Path(server.folder.name, "message")
    body.write_bytes(struct.pack(">BI", 0, len(request.body)) + request.body)
    command = ["h2load", "-t1", "-c1", f"-m{at_once}", "-w30", "-W30", f"--duration={round(seconds * 1000)}ms"]
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    done = subprocess.run(
        [*command, *headers, "-d", str(body), f"http://127.0.0.1:{server.port}{request.path}"],
        capture_output=True,
        text=True,
        check=True,
    )
    ended, failed = _figures(done.stdout, r"requests: .*, (\d+) done, .*, (\d+) failed")
    (data,) = _figures(done.stdout, r"traffic: .* \((\d+)\) data")
    count = data / size
    if failed or not count or abs(count - ended) > at_once + ended / 10:
        raise RuntimeError(f"{failed} of {ended} calls failed, {data} bytes came, of {size} an answer:\n{done.stdout}")
    return {"calls/s": count / seconds, "count": count}


def _figures(told: str, pattern: str) -> list[int]:
    found = re.search(pattern, told)
    if found is None:
        raise RuntimeError(f"h2load said something else:\n{told}")
    return [int(group) for group in found.groups()]
