"""The command itself: its subcommands, its version, and its exit codes.

A mistake in the input (a `DefinitionError`, an unknown option) exits with 2, any other error of this library with 1;
both print the message only. An exception of an Executor prints its traceback, and exits with 1 too.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib import metadata

import click

from jina_asgi import compat
from jina_asgi.cli.ask import client, ping
from jina_asgi.cli.project import check, export, new
from jina_asgi.cli.serve import deployment, executor, flow, pool
from jina_asgi.errors import DefinitionError, JinaASGIError
from jina_asgi.excepts import BaseJinaException

_PACKAGES = (
    *("jina-asgi", "anyio", "click", "docarray", "httpx", "msgspec", "numpy", "orjson", "pydantic", "pyyaml"),
    *("sse-starlette", "starlette", "uvicorn", "gunicorn", "fastapi", "torch"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command, and exits: with 2 if it is written wrong, with 1 if it fails."""
    if "" not in sys.path:
        sys.path.insert(0, "")  # as with `python -m`, import paths start in the working directory
    compat.install()  # Executors of Jina's hub import `jina`
    try:
        code = jina_asgi(arguments, prog_name="jina-asgi", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except DefinitionError as error:
        _print_error(error)
        sys.exit(2)
    except (JinaASGIError, BaseJinaException, ConnectionError) as error:
        _print_error(error)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _print_error(error: Exception) -> None:
    for line in str(error).splitlines() or [type(error).__name__]:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {line}", err=True)


def _version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(metadata.version("jina-asgi"))
        context.exit()


def _versions(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    found = {distribution.name.lower(): distribution.version for distribution in metadata.distributions()}
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _PACKAGES:
        versions[name] = found.get(name, found.get(name.replace("-", "_"), "-"))
    for name, version in versions.items():
        click.echo(f"{name:<15}{version}")
    context.exit()


class _Commands(click.Group):
    """Lists commands in the order in which a user needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "-v", "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="The version."
)
@click.option(
    "-vf",
    "--version-full",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_versions,
    help="The versions of Python and the main packages.",
)
def jina_asgi() -> None:
    """Executors inside your own web application.

    \b
    jina-asgi new my-model                   a project that passes its own tests
    jina-asgi check config.yml               run every endpoint once
    jina-asgi deployment --uses config.yml --protocol http --port 12345
                                             serve it by itself
    jina-asgi client localhost:12345 --on /shout --data '{"text": "hi"}'
                                             call it
    """


for _command in (new, check, deployment, flow, executor, client, ping, pool, export):
    jina_asgi.add_command(_command)
