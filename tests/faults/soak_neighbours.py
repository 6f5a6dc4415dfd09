"""Each of the most expensive requests that are allowed, on each way, beside one who asks every 20 ms.

    python -m tests.faults.soak_neighbours [part of a name ...]

Nothing is answered late, and nothing takes more memory than the limits allow four times over. Some five minutes.
"""

from __future__ import annotations

import asyncio
import sys
import time

from tests.faults.neighbours import WAYS, served


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
    return failed


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(main(sys.argv[1:])) else 0)
