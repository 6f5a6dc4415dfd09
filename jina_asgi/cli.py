"""The command `jina-asgi`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

_COLUMNS = ("deployment", "replica", "state", "pid", "device", "in flight", "answered", "restarts", "uses")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exits with 2 where it is written wrong."""
    parser = argparse.ArgumentParser(prog="jina-asgi", description="Executors inside your own web application.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    pool = commands.add_parser("pool", help="show the pools of this user: replicas, devices, queues, restarts")
    pool.add_argument("--json", action="store_true", help="everything that is known, as JSON")
    pool.set_defaults(run=_pool)
    options = parser.parse_args(arguments)
    options.run(options)


def _pool(options: argparse.Namespace) -> None:
    from jina_asgi.processes import election, place  # Linux only

    hosts = [found for path in place.sockets() if (found := election.status(path)) is not None]
    if options.json:
        print(json.dumps(hosts, indent=2))
    elif not hosts:
        print("no pool is running; one starts with a server that has a Deployment(replicas=...)")
    for host in [] if options.json else hosts:
        _print_host(host)


def _print_host(host: dict[str, Any]) -> None:
    print(f"pool host {host['pid']} of {host['instance']}")
    rows = [_COLUMNS, *_rows(host)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_COLUMNS))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for deployment in host["deployments"].values():
        queue = deployment["queue"]
        print(f"  {deployment['name']}: {queue['pending']} calls pending, {deployment['users']} workers connected")
        if deployment["failure"]:
            print(f"  {deployment['name']} failed: {deployment['failure']}", file=sys.stderr)


def _rows(host: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for deployment in host["deployments"].values():
        for name, replica in deployment["replicas"].items():
            facts = [replica[fact] for fact in ("state", "pid", "device", "in_flight", "answered", "restarts")]
            cells = ["-" if fact in (None, "") else str(fact) for fact in facts]
            yield (deployment["name"], name, *cells, deployment["uses"])
