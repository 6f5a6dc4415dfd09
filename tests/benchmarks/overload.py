"""An open loop at four times the capacity: what is served, what is refused, how soon, and when it says to come back."""

import asyncio
import json
import statistics
import time
from pathlib import Path

from batch_models import BATCH
from harness import LOAD_CORE, Request, Server, System, dumps

CAPACITY = BATCH / (0.100 + 0.002 * BATCH)  # of the model `slow`, in requests a second
TIMES = 4


def _request(wrapped: bool) -> object:
    return lambda word: Request("/run", dumps({"data": [{"text": word}]} if wrapped else {"text": word}))


def _system(name: str, *, wrapped: bool, extra: list[str]) -> System:
    check = lambda word, raw: f"{word}!".encode() in raw
    return System(name, "batching", _request(wrapped), check, args=["slow", *extra])  # type: ignore[arg-type]


class Outcome:
    def __init__(self, sent: float, status: int, took: float, after: float | None) -> None:
        self.sent, self.status, self.took, self.after = sent, status, took, after


async def one(port: int, body: bytes, patience: float) -> Outcome:
    begun = time.perf_counter()
    try:
        async with asyncio.timeout(patience):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                head = f"POST /run HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                begun = time.perf_counter()
                writer.write(head.encode() + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                took = time.perf_counter() - begun
                await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return Outcome(begun, 0, time.perf_counter() - begun, None)
    lines = answer.decode("latin-1").lower().split("\r\n")
    after = next((float(line.partition(":")[2]) / 1000 for line in lines if line.startswith("retry-after-ms:")), None)
    return Outcome(begun, int(lines[0].split()[1]), took, after)


async def open_loop(port: int, body: bytes, rate: float, seconds: float, patience: float) -> list[Outcome]:
    """So many requests a second, whatever becomes of them."""
    begun = time.perf_counter()
    tasks: list[asyncio.Task[Outcome]] = []
    while (now := time.perf_counter() - begun) < seconds:
        due = int(now * rate) - len(tasks)
        tasks += [asyncio.ensure_future(one(port, body, patience)) for _ in range(due)]
        await asyncio.sleep(0.005)
    return list(await asyncio.gather(*tasks))


def memory(server: Server) -> int:
    """The resident memory of all its processes, in MiB."""
    total = 0
    for pid in server.pids():
        status = Path(f"/proc/{pid}/status").read_text()
        total += next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return total // 1024


def drain_errors(outcomes: list[Outcome]) -> list[float]:
    """How far each `retry-after-ms` was off the time until all that was accepted before it had been answered."""
    accepted = [(o.sent, o.sent + o.took) for o in outcomes if o.status == 200]
    last, ends, errors, index = 0.0, [], [], 0
    for sent, end in sorted(accepted):
        last = max(last, end)
        ends.append((sent, last))
    for o in sorted((o for o in outcomes if o.after is not None), key=lambda o: o.sent):
        while index < len(ends) and ends[index][0] <= o.sent:
            index += 1
        if index:
            true = ends[index - 1][1] - o.sent
            errors.append((o.after or 0.0) / true - 1)
    return errors


def row(system: System, seconds: float) -> str:
    import os

    with Server(system) as server:
        os.sched_setaffinity(0, LOAD_CORE)
        body = system.request("load").body
        asyncio.run(open_loop(server.port, body, CAPACITY, 2.0, 10))
        before = memory(server)
        outcomes = asyncio.run(open_loop(server.port, body, TIMES * CAPACITY, seconds, patience=10.0))
        after = memory(server)
    begun = min(o.sent for o in outcomes)
    good = [o for o in outcomes if o.status == 200]
    goodput = sum(o.sent + o.took - begun < seconds for o in good) / seconds / CAPACITY
    refused = [o.took * 1000 for o in outcomes if o.status == 503]
    errors = drain_errors(outcomes)
    within = sum(abs(error) <= 0.5 for error in errors) / len(errors) if errors else 0.0
    cells = [
        system.name,
        f"{goodput:.2f}",
        f"{len(outcomes)}",
        f"{len(refused)}",
        f"{statistics.median(refused):.2f} / {_percentile(refused, 0.99):.2f}" if refused else "-",
        f"{within:.0%} ({statistics.median(errors):+.0%})" if errors else "-",
        f"{statistics.median(o.took for o in good):.2f} / {_percentile([o.took for o in good], 0.99):.2f}"
        if good
        else "-",
        f"{sum(o.status == 0 for o in outcomes)}",
        f"{before} to {after}",
    ]
    return "| " + " | ".join(cells) + " |"


def _percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


def report(seconds: float) -> str:
    heads = [
        "",
        "goodput × capacity",
        "sent",
        "refused",
        "refused after ms p50 / p99",
        "`retry-after-ms` within 50 % (median off by)",
        "answered after s p50 / p99",
        "no answer in 10 s",
        "MiB before and after",
    ]
    systems = [
        _system("jina_asgi", wrapped=True, extra=[]),
        _system("plain FastAPI", wrapped=False, extra=["plain"]),
    ]
    lines = [f"## Overload: `slow`, {TIMES} times its capacity of {CAPACITY:.0f}/s for {seconds:.0f} s", ""]
    lines += ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * (len(heads) - 1)]
    return "\n".join([*lines, *(row(system, seconds) for system in systems)])


if __name__ == "__main__":
    print(json.dumps(CAPACITY))
