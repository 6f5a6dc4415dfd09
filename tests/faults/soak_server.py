"""A real gunicorn with four workers and a pool, whose processes are killed or replaced again and again under load.

    python tests/faults/soak_server.py --replicas 200 --workers 60 --hosts 20 --reloads 20 --recycled 5000 --storm 200

Of each kind so many; 0 leaves it out. No answer may be wrong or missing, ever. Where replicas and hosts die, idempotent
requests are all right, others may be told ReplicaDied; where workers are killed, their connections are cut and no more;
where workers are replaced in good order, nothing fails at all. A storm is all of these at once. Afterwards nothing is
left.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults.soak_rig import Load, Soaked, boot_time, now, soak, soaked, told

CLIENTS = 9
REPLICAS = 2


def facts(load: Load) -> str:
    return f"again {dict(load.outcomes['/again'])}, once {dict(load.outcomes['/once'])}, raced {load.raced}"


def only(counts: Counter[str], *allowed: str) -> bool:
    return set(counts) <= {"right", *allowed} and counts["right"] > 0


async def replicas_killed(times: int, seed: int) -> bool:
    """RP-01: no answer is lost but those of requests that ran and must not run twice."""
    dice, waits, slowest = random.Random(seed), [0.0], 0.0
    async with soaked() as one:
        async with Load(one.server.port, CLIENTS, seed) as load:
            for _ in range(times):
                await asyncio.sleep(dice.uniform(0.0, 0.5))  # the moment of the kill is what varies
                before = one.serving()
                start = now()
                new = await replaced(one, dice.choice(sorted(before))) - before
                slowest = max(slowest, now() - start)
                waits.append(max(boot_time(pid) - start for pid in new))
        await one.end()
    again, once = load.outcomes["/again"], load.outcomes["/once"]
    held = only(again) and only(once, "ReplicaDied") and once["ReplicaDied"] <= 2 * times and max(waits) <= 1.0
    took = f"longest until another was started {max(waits):.2f} s, until it served {slowest:.2f} s"
    return told(f"{times} replicas killed", held, f"{facts(load)}; {took}")


async def replaced(one: Soaked, victim: int) -> set[int]:
    """Kill a replica, and wait until as many as before serve; which those are."""
    os.kill(victim, signal.SIGKILL)
    await one.until(lambda: len(one.serving() - {victim}) == REPLICAS)
    return one.serving()


async def workers_killed(times: int, seed: int) -> bool:
    """GU-01: a worker's death cuts its own connections; the pool does not notice."""
    dice = random.Random(seed)
    async with soaked() as one:
        before = set(one.replicas)
        async with Load(one.server.port, CLIENTS, seed) as load:
            for _ in range(times):
                await load.more(20)
                victim = dice.choice(one.workers)
                os.kill(victim, signal.SIGKILL)
                await without(one, {victim})
            await load.more(20)
        same = set(one.replicas) == before
        await one.end()
    held = all(only(counts, "cut") for counts in load.outcomes.values()) and same
    cut = sum(counts["cut"] for counts in load.outcomes.values()) + load.raced
    held = held and cut <= times * CLIENTS
    return told(f"{times} workers killed", held, f"{facts(load)}; replicas unchanged: {same}")


async def hosts_killed(times: int, seed: int) -> bool:
    """RP-15: the workers elect one other host, which loads each replica once."""
    dice, slowest = random.Random(seed), 0.0
    async with soaked() as one:
        async with Load(one.server.port, CLIENTS, seed) as load:
            for number in range(times):
                await load.more(20)
                await asyncio.sleep(dice.uniform(0.0, 0.2))  # the moment of the kill is what varies
                start = now()
                await another_host(one, one.host)
                slowest = max(slowest, now() - start)
                assert one.loads() == REPLICAS * (number + 2), f"{one.loads()} replicas have loaded"
            await load.more(20)
        await one.end()
    again, once = load.outcomes["/again"], load.outcomes["/once"]
    held = only(again) and only(once, "ReplicaDied") and once["ReplicaDied"] <= CLIENTS * times
    return told(f"{times} hosts killed", held, f"{facts(load)}; slowest recovery {slowest:.2f} s")


async def another_host(one: Soaked, host: int) -> None:
    """Kill the host, and wait until another has its replicas up."""
    os.kill(host, signal.SIGKILL)
    await one.until(lambda: one.hosts() not in ([], [host]) and len(one.serving()) == REPLICAS)


async def without(one: Soaked, old: set[int]) -> None:
    """Wait until there are as many workers as there should be, and none of the old."""
    await one.until(lambda: len(one.workers) == 4 and not old & set(one.workers))


async def reloads(times: int, seed: int) -> bool:
    """GU-02: HUP under load fails nothing, and loads no model."""
    async with soaked() as one:
        async with Load(one.server.port, CLIENTS, seed) as load:
            for _ in range(times):
                old = set(one.workers)
                one.server.signal(signal.SIGHUP)
                await without(one, old)
                await load.more(20)
        return await ended_in_order(one, load, f"{times} reloads")


async def recycled(requests: int, seed: int) -> bool:
    """GU-06: workers that end after their share of requests fail nothing, and load no model."""
    async with soaked("--max-requests", "50", "--max-requests-jitter", "20") as one:
        async with Load(one.server.port, CLIENTS, seed) as load:
            await load.more(requests)
        replaced = one.server.log.count("Booting worker") - 4
        held = await ended_in_order(one, load, f"{requests} requests, {replaced} workers recycled")
        return held and replaced >= requests // 300


async def storm(times: int, seed: int) -> bool:
    """SO-05: all of these at once, and none waits until the last has been got over; afterwards all is well."""
    dice, counts = random.Random(seed), Counter[str]()
    async with soaked() as one:
        async with Load(one.server.port, CLIENTS, seed) as load:
            for _ in range(times):
                await asyncio.sleep(dice.uniform(0.1, 1.5))  # the moment is what varies
                counts[strike(one, dice)] += 1
            await one.until(lambda: len(one.workers) == 4 and len(one.serving()) == REPLICAS)
            await load.more(20)  # whose fault is older
            during = {on: Counter(counts) for on, counts in load.outcomes.items()}
            await load.more(200)
        after = sum((load.outcomes[on] - during[on] for on in during), Counter[str]())
        await one.end()
    held = all(only(counts, "cut", "ReplicaDied", "NotReady") for counts in during.values()) and only(after)
    return told(f"a storm of {dict(counts)}", held, f"{facts(load)}; afterwards {dict(after)}")


def strike(one: Soaked, dice: random.Random) -> str:
    """One fault; what it was."""
    kind = dice.choices(["replica", "worker", "host", "reload"], [10, 5, 1, 5])[0]
    if kind == "reload":
        one.server.signal(signal.SIGHUP)
        return kind
    # A replica that is killed before it serves has failed to load; five of those are a crash loop, which is no storm.
    found = {"replica": sorted(one.serving()), "worker": one.workers, "host": one.hosts()}[kind]
    for pid in dice.sample(found, len(found)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has just ended
            continue
        return kind
    return "nothing"


async def ended_in_order(one: Soaked, load: Load, name: str) -> bool:
    loads = one.loads()
    await one.end()
    held = all(only(counts) for counts in load.outcomes.values()) and loads == REPLICAS
    return told(name, held and "Traceback" not in one.server.log, f"{facts(load)}; models loaded: {loads}")


SOAKS = {
    "replicas": replicas_killed,
    "workers": workers_killed,
    "hosts": hosts_killed,
    "reloads": reloads,
    "recycled": recycled,
    "storm": storm,
}


if __name__ == "__main__":
    soak(__doc__, SOAKS)
