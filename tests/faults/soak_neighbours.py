"""Each of the most expensive requests and answers, on each way, beside a client that asks every 20 ms.

    python -m tests.faults.soak_neighbours [part of a name ...]

Nothing is answered late, and nothing takes more memory than the limits allow four times over. The requests take some five
minutes, the answers an hour.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from tests.faults import neighbours_answered
from tests.faults.neighbour_answers import KINDS
from tests.faults.neighbours import LATE, WAYS, Server, served, served_elsewhere

#: How large the answers are.
_MEGABYTES = 60


async def main(parts: list[str]) -> int:
    failed = 0
    with served() as server:
        for send, names in WAYS.items():
            for name in names:
                told, began = f"{send.__name__}: {name}", time.monotonic()
                if parts and not any(part in told for part in parts):
                    continue
                try:
                    await send(server, name)
                    outcome = "well"
                except AssertionError as error:
                    failed += 1
                    outcome = f"FAILED {error}"
                print(f"{told}: {outcome}, {time.monotonic() - began:.1f} s", flush=True)
    places: dict[str, Callable[[], AbstractContextManager[Server]]] = {
        "answers of a worker": partial(served, "answers of a worker"),
        "answers of a pool": partial(served, "answers of a pool"),
        "answers over HTTP": partial(served_elsewhere, "http", "answers of a worker"),
        "answers over gRPC": partial(served_elsewhere, "grpc", "answers of a worker"),
    }
    for place, serve in places.items():
        for way in neighbours_answered.WAYS:
            for kind in KINDS:
                told = f"{place}: {way}: {kind}"
                if parts and not any(part in told for part in parts):
                    continue
                with serve() as server:
                    found = await neighbours_answered.answered(server, way, kind, _MEGABYTES)
                late = max(found.held, found.held_in_pool) >= LATE
                failed += late
                print(f"{told}: {'FAILED' if late else 'well'}, {found}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(main(sys.argv[1:])) else 0)
