"""`jina-asgi deployment`, `flow` and `executor`: load, serve, and block until a signal."""

from __future__ import annotations

from typing import Any

import click

from jina_asgi.cli.options import CONTEXT, SettingsCommand, chosen, setting_options
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
