"""`jina-asgi pool`: shows the running pools, their replicas and queues."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from jina_asgi.errors import NotReady

_COLUMNS = ("deployment", "replica", "state", "pid", "device", "in flight", "answered", "restarts", "uses")
_AT_ONCE = 16  # hosts are queried concurrently, as each may be slow


@click.command(short_help="Show the replicas that run.")
@click.option("--json", "as_json", is_flag=True, help="Everything that is known, as JSON.")
def pool(as_json: bool) -> None:
    """Show the pools of this user: replicas, devices, queues, restarts."""
    from jina_asgi.processes import instance  # Linux only

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        hosts = [found for found in threads.map(_status_of, instance.sockets()) if found is not None]
    answers = [found for found in hosts if not isinstance(found, NotReady)]
    if as_json:
        click.echo(json.dumps(answers, indent=2))
    elif not hosts:
        click.echo("no pool is running; one starts with a server that has a Deployment(replicas=...)")
    for host in [] if as_json else answers:
        _print_host(host)
    for silent in hosts:
        if isinstance(silent, NotReady):
            click.echo(silent.message, err=True)


def _status_of(path: Path) -> dict[str, Any] | NotReady | None:
    """The status of the host at a socket, or the error if it does not answer; None if there is no host any more."""
    from jina_asgi.processes import host_socket

    try:
        return host_socket.status(path)
    except NotReady as error:
        return error


def _print_host(host: dict[str, Any]) -> None:
    click.echo(f"pool host {host['pid']} of {host['instance']}")
    rows = [_COLUMNS, *_rows(host)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_COLUMNS))]
    for row in rows:
        click.echo("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for deployment in host["deployments"].values():
        queue = deployment["queue"]
        click.echo(f"  {deployment['name']}: {queue['pending']} calls pending, {deployment['users']} workers connected")
        if deployment["failure"]:
            click.echo(f"  {deployment['name']} failed: {deployment['failure']}", err=True)


def _rows(host: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for deployment in host["deployments"].values():
        for name, replica in deployment["replicas"].items():
            facts = [replica[fact] for fact in ("state", "pid", "device", "in_flight", "answered", "restarts")]
            cells = ["-" if fact in (None, "") else str(fact) for fact in facts]
            yield (deployment["name"], name, *cells, deployment["uses"])
