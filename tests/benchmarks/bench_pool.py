"""One pool behind several web workers: throughput, latency, CPU, memory.

python tests/benchmarks/bench_pool.py --parts rate,replicas,latency,memory,idle --seconds 3 --rounds 3

`ideal` is the model called back to back with full batches. Everything is on one core but the load.
"""

import http.client
import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import bench_batching
import load
from harness import Benchmark, Request, Row, Server, System, dumps, main, parser, spread

COLD = 200  # round trips before those that count


def pool(name: str, workers: int, model: str, replicas: int, weight: int = 0, path: str = "/run") -> System:
    answer = bench_batching.SUFFIX.get(model, "") if path == "/run" else ""
    return System(
        name,
        "pool",
        args=[str(workers), model, str(replicas), str(weight)],
        request=lambda word: Request(path, dumps({"data": [{"text": word}]})),
        check=lambda word, raw: f"{word}{answer}".encode() in raw,
    )


def processes(server: Server, words: str) -> list[int]:
    """The server's processes whose command has these words in it."""
    found = []
    for pid in server.pids():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if words in command:
            found.append(pid)
    return found


def cpu(pids: Sequence[int]) -> float:
    """Seconds of CPU time that these have used."""
    used = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/schedstat").read_text().split()
        used += int(fields[0]) / 1e9
    return used


def measured(server: Server, connections: int, seconds: float) -> Row:
    host = processes(server, "serving.programs.pool_host")
    before = cpu(host)
    row = dict(bench_batching.measure(server, connections, seconds))
    row["host µs"] = (cpu(host) - before) / row["count"] * 1e6 if host else 0.0
    return row


def rate() -> Benchmark:
    return Benchmark(
        title="Pool: one replica, batch 32, model `sleep`",
        cells={"64 clients": 64, "256 clients": 256},
        systems=[
            *[one for one in bench_batching.systems("sleep") if one.name in ("ideal", "mosec", "litserve")],
            pool("4 workers, 1 replica", 4, "sleep", 1),
            pool("1 worker, 1 replica", 1, "sleep", 1),
        ],
        measure=measured,
        main="requests/s",
    )


def replicas() -> Benchmark:
    return Benchmark(
        title="Pool: two replicas against one, batch 32, model `slow`",
        cells={"256 clients": 256},
        systems=[pool("1 replica", 4, "slow", 1), pool("2 replicas", 4, "slow", 2)],
        measure=measured,
        main="requests/s",
    )


def latency(rounds: int) -> str:
    """One document there and back: over HTTP with and without the pool, gunicorn's way, and two bare processes."""
    names = ("two bare processes", "in the web worker", "through the pool", "through a dirty worker")
    rows: dict[str, list[float]] = {name: [] for name in names}
    local = System(
        "local",
        "jina_asgi",
        request=lambda word: Request("/echo", dumps({"data": [{"text": word}]})),
        check=lambda word, raw: word.encode() in raw,
    )
    dirty = System("dirty", "dirty", request=local.request, check=local.check)
    with (
        Server(local) as one,
        Server(pool("pool", 1, "sleep", 1, path="/echo")) as other,
        Server(dirty) as third,
    ):
        for _ in range(rounds):
            rows["two bare processes"].append(ping_pong())
            for name, server in zip(names[1:], (one, other, third), strict=True):
                rows[name].append(round_trip(server))
    lines = ["## Pool: latency of one document, ms", "", "| | p50 |", "|---|--:|"]
    lines += [f"| {name} | {statistics.median(values):.3f} |" for name, values in rows.items()]
    added = [b - a for a, b in zip(rows["in the web worker"], rows["through the pool"], strict=True)]
    dirtied = [b - a for a, b in zip(rows["in the web worker"], rows["through a dirty worker"], strict=True)]
    lines += [f"| added by the pool | {statistics.median(added):.3f} |"]
    lines += [f"| added by a dirty worker | {statistics.median(dirtied):.3f} |", ""]
    bare = [a / b for a, b in zip(added, rows["two bare processes"], strict=True)]
    lines += [f"Added, as a multiple of the bare round trip: {spread(bare)}"]
    halves = [a / b for a, b in zip(added, dirtied, strict=True)]
    return "\n".join([*lines, f"of what a dirty worker adds: {spread(halves)}"])


def round_trip(server: Server, count: int = 1000) -> float:
    """The median of one connection's requests, in milliseconds."""
    request = server.system.request("load")
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    took = []
    for _ in range(COLD + count):
        begun = time.perf_counter()
        connection.request("POST", request.path, request.body, {"Content-Type": request.content_type})
        connection.getresponse().read()
        took.append(time.perf_counter() - begun)
    connection.close()
    return statistics.median(took[COLD:]) * 1000


def ping_pong(count: int = 1000) -> float:
    """The median of a byte there and back between two processes on one core, in milliseconds."""
    ours, theirs = socket.socketpair()
    child = multiprocessing.get_context("fork").Process(target=_echo, args=(theirs,))
    child.start()
    took = []
    for _ in range(COLD + count):
        begun = time.perf_counter()
        ours.send(b"x" * 100)
        ours.recv(100)
        took.append(time.perf_counter() - begun)
    child.kill()
    child.join()
    ours.close()
    theirs.close()
    return statistics.median(took[COLD:]) * 1000


def _echo(connection: socket.socket) -> None:
    while data := connection.recv(100):
        connection.send(data)


def memory() -> str:
    """The proportional set size of all processes of a server, with a weight of a gigabyte and without."""
    found = {}
    for weight in (0, 1024):
        with Server(pool("pool", 4, "sleep", 1, weight)) as server:
            load.requests(server, 64, 2)
            found[weight] = pss(server)
            workers = processes(server, "gunicorn")
            has = sum("pooled_work" in Path(f"/proc/{pid}/maps").read_text() for pid in workers)
    over = (found[1024] - found[0]) / 2**30
    return (
        "## Pool: memory, 4 web workers and 1 replica\n\n"
        f"{found[0] / 2**20:.0f} MiB without a weight, {found[1024] / 2**20:.0f} with one of 1 GiB: "
        f"{over:.2f} GiB more ({has} of {len(workers)} web processes map the model's module)"
    )


def pss(server: Server) -> int:
    total = 0
    for pid in server.pids():
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def idle(seconds: float) -> str:
    """CPU of a server that nobody asks, and of the same gunicorn with an application of Starlette's alone."""
    with Server(pool("pool", 4, "sleep", 2)) as server, Server(pool("plain", 4, "none", 0, path="/echo")) as plain:
        groups = {"host": "serving.programs.pool_host", "replicas": "serving.programs.replica", "web": "gunicorn"}
        pids = {name: processes(server, words) for name, words in groups.items()}
        pids["web without us"] = processes(plain, "gunicorn")
        before = {name: cpu(found) for name, found in pids.items()}
        time.sleep(seconds)
        used = {name: (cpu(found) - before[name]) / seconds / max(len(found), 1) for name, found in pids.items()}
    shares = ", ".join(f"{name} {share:.3%}" for name, share in used.items())
    return f"## Pool: idle for {seconds:.0f} s\n\nPart of a core, each process: {shares}"


@contextmanager
def on_one_core() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {1})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


if __name__ == "__main__":
    options = parser(__doc__, seconds=3, rounds=3)
    options.add_argument("--parts", default="rate,replicas,latency,memory,idle", help="(%(default)s)")
    options.add_argument("--idle-seconds", type=float, default=30.0, help="(%(default)s)")
    chosen = options.parse_args()
    parts = chosen.parts.split(",")
    if "latency" in parts:
        with on_one_core():
            print(latency(chosen.rounds), flush=True)
    if "memory" in parts:
        print(memory(), flush=True)
    if "idle" in parts:
        print(idle(chosen.idle_seconds), flush=True)
    served = [made() for part, made in (("rate", rate), ("replicas", replicas)) if part in parts]
    if served:
        main(served, chosen)
