"""`jina-asgi export`: writes the JSON Schema of the YAML, for editors, and the graph of a Flow."""

from __future__ import annotations

import json
from pathlib import Path

import click

from jina_asgi.config.json_schema import yaml_schema
from jina_asgi.serving.flow import Flow

_OUT = click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="The file to write; by default it is printed."
)


@click.group(short_help="Write files for other programs: a schema, a flowchart.")
def export() -> None:
    """Write files for other programs."""


@export.command()
@_OUT
def schema(out: Path | None) -> None:
    """The JSON Schema of the YAML of Executors, Deployments and Flows, with which editors complete and check it.

    \b
    jina-asgi export schema --out jina-asgi.json
    # yaml-language-server: $schema=jina-asgi.json      the first line of a YAML
    """
    _write(json.dumps(yaml_schema(), indent=2) + "\n", out)


@export.command()
@click.argument("uses", metavar="FLOW.YML")
@_OUT
def flowchart(uses: str, out: Path | None) -> None:
    """A Flow's graph as Mermaid's text."""
    _write(Flow.load_config(uses).plot(), out)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.FileError(str(out), error.strerror) from error
