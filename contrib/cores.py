"""How many CPU threads the arithmetic may use. Reads the machine; decides nothing else."""

from __future__ import annotations

import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def default_threads() -> int | None:
    """One fewer than the cores this process may use, and at least one; None (torch's choice) if OMP_NUM_THREADS is set.

    One core stays free for the event loop and whatever else the machine does: the threads of one operation wait for
    each other busily, so a single one that shares its core stops all. With two threads on two cores and one other busy
    process, 8 streams fell from 183 to 7 tokens/s; with one thread from 109 to 38 at worst.
    """
    if os.environ.get("OMP_NUM_THREADS"):
        return None
    cores: float = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if _QUOTA.is_file():
        cores = min(cores, quota(_QUOTA.read_text()))
    return max(1, int(cores) - 1)


def quota(cpu_max: str) -> float:
    """The cores that a control group's `cpu.max` allows: "max 100000" is no limit, "150000 100000" is 1.5."""
    allowed, period = cpu_max.split()
    return float("inf") if allowed == "max" else float(allowed) / float(period)
