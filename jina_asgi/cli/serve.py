"""`jina-asgi deployment`, `flow` and `executor` load, serve and block until a signal; `jina-asgi pool` shows what runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from jina_asgi.cli.options import CONTEXT, SettingsCommand, chosen, setting_options
from jina_asgi.errors import NotReady
from jina_asgi.serving.asgi import source_of
from jina_asgi.settings import AROUND, DeploymentSettings, FlowSettings

_USES = "An import path (package.module.Class, module:Class) or the path of a YAML."


@click.command(cls=SettingsCommand, context_settings=CONTEXT, short_help="Serve an Executor, or a Deployment's YAML.")
@click.option("--uses", required=True, metavar="X", help=_USES)
@setting_options(DeploymentSettings)
@click.pass_context
def deployment(context: click.Context, /, uses: str, **values: Any) -> None:
    """Serve an Executor, or the YAML of a Deployment, until Ctrl-C or SIGTERM.

    \b
    jina-asgi deployment --uses model.StableLM --protocol http --port 12345
    jina-asgi deployment --uses deployment.yml --replicas 2 --uses-with model=small
    """
    source_of(uses, expected=("Deployment", "Executor"), **chosen(context, values)).block()


@click.command(cls=SettingsCommand, context_settings=CONTEXT, short_help="Serve a Flow's YAML.")
@click.option("--uses", required=True, metavar="FILE", help="The path of a Flow's YAML.")
@setting_options(FlowSettings, without=("uses_with", *AROUND, "external", "tls", "shard_id"))
@click.pass_context
def flow(context: click.Context, /, uses: str, **values: Any) -> None:
    """Serve the YAML of a Flow, until Ctrl-C or SIGTERM. Options override those of its `with`.

    \b
    jina-asgi flow --uses flow.yml --protocol http --port 12345
    """
    if not uses.endswith((".yml", ".yaml")):
        raise click.BadParameter(f"expected the path of a YAML of a Flow, got {uses!r}", param_hint="--uses")
    source_of(uses, expected=("Flow",), **chosen(context, values)).block()


@click.command(cls=SettingsCommand, context_settings=CONTEXT, short_help="Serve one Executor alone.")
@click.option("--uses", required=True, metavar="X", help=_USES)
@setting_options(DeploymentSettings, without=("replicas", "shards", "polling", *AROUND, "external", "tls", "no_reduce"))
@click.pass_context
def executor(context: click.Context, /, uses: str, **values: Any) -> None:
    """Serve one Executor alone, as in a container, until Ctrl-C or SIGTERM.

    \b
    jina-asgi executor --uses config.yml --protocol http --port 8080
    """
    source_of(uses, expected=("Executor",), **chosen(context, values)).block()


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
