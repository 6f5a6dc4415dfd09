"""`jina-asgi new`, `check` and `export`: creates a project, tries every endpoint of it, and writes its JSON Schema or graph."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

import click

from jina_asgi.documents._examples import document_example, value_example
from jina_asgi.errors import InvalidDocs, JinaASGIError
from jina_asgi.errors._raised import error_text
from jina_asgi.errors._shown import safe_repr
from jina_asgi.serving.asgi import source_of
from jina_asgi.serving.config.json_schema import yaml_schema
from jina_asgi.serving.deployment import Deployment
from jina_asgi.serving.flow import Flow
from jina_asgi.types import Endpoint

_EVERY = {
    "executor.py": "executor.py",
    "config.yml": "config.yml",
    "app.py": "app.py",
    "gunicorn.conf.py": "gunicorn.conf.py",
    "pyproject.toml": "pyproject.toml",
    "requirements.txt": "requirements.txt",
    "README.md": "README.md",
    "tests/test_executor.py": "test_executor.py",
    "tests/test_app.py": "test_app.py",
}
#: The additional files of each type, the YAML that its application mounts, and the code that loads it.
_TYPES: dict[str, tuple[dict[str, str], str, str, str]] = {
    "app": ({}, "config.yml", "Deployment", ""),
    "deployment": ({"deployment.yml": "deployment.yml"}, "deployment.yml", "Deployment", ".load_config"),
    "flow": ({"flow.yml": "flow.yml", "executor.py": "flow_executor.py"}, "flow.yml", "Flow", ".load_config"),
}
_SERVED = '\nWithout an application around it: `jina-asgi {kind} --uses {yaml}`, then `jina-asgi client localhost:12345 --on /shout --data \'{{"text": "hi"}}\'`.\n'
_LINK = "https://github.com/jina-asgi/jina-asgi"


@click.command(short_help="Make a project that passes its own tests.")
@click.argument("folder", metavar="NAME", type=click.Path(path_type=Path))
@click.option(
    "--type", "kind", type=click.Choice(list(_TYPES)), default="app", show_default=True, help="The kind of project."
)
def new(folder: Path, kind: str) -> None:
    """Make a project in a new folder NAME: an Executor, an application with it, and tests that pass.

    `app` is an Executor mounted into FastAPI; `deployment` and `flow` add a YAML with which it can be served alone.
    """
    name = folder.name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise click.BadParameter(f"expected letters, digits, - and _, got {name!r}", param_hint="NAME")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise click.BadParameter(f"{folder} exists already; choose a new folder", param_hint="NAME")
    for path, text in project(name, kind).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    click.echo(f"{folder} is ready:\n\n  cd {folder}\n  pip install -r requirements.txt\n  pytest\n  gunicorn app:app")


def project(name: str, kind: str) -> dict[str, str]:
    """The files of a project, by path."""
    more, yaml, source, load = _TYPES[kind]
    words = [word for word in re.split(r"[-_]+", name) if word]
    made = "".join(word[:1].upper() + word[1:] for word in words)
    facts = {
        "name": name,
        "Class": made if made not in ("Clean", "Text", "Executor") else f"{made}Model",
        "identifier": name.replace("-", "_"),
        "yaml": yaml,
        "check": f"jina-asgi check {yaml}".ljust(32),
        "Source": source,
        "load": load,
        "link": _LINK,
        "served": "" if kind == "app" else _SERVED.format(kind=kind, yaml=yaml),
    }
    folder = resources.files("jina_asgi.cli") / "project"
    return {
        path: Template((folder / f"{file}.txt").read_text(encoding="utf-8")).substitute(facts).rstrip("\n") + "\n"
        for path, file in {**_EVERY, **more}.items()
    }


_OF_STREAM = 100  # the number of documents after which a stream counts as working


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The outcome of running one endpoint."""

    endpoint: str
    seconds: float
    documents: int = 0
    problem: str = ""


@click.command(short_help="Run every endpoint once.")
@click.argument("uses", metavar="X")
@click.option("--timeout", default=60.0, show_default=True, help="The time limit of each endpoint in seconds.")
def check(uses: str, timeout: float) -> int:
    """Load X (an import path, or the YAML of an Executor, a Deployment or a Flow), run each endpoint once, and report.

    The example is that of the documents' schema (`examples` in pydantic), else one with the required fields. Exits with 1
    if an endpoint fails.
    """
    failed = asyncio.run(_check(source_of(uses), timeout))
    return 1 if failed else 0


async def _check(source: Deployment | Flow, timeout: float) -> int:
    began = time.perf_counter()
    failed = 0
    async with source:
        click.echo(f"{source.name} loaded in {time.perf_counter() - began:.2f} s")
        width = max((len(name) for name in source.endpoints), default=0)
        for endpoint in source.endpoints.values():
            tried = await _try(source, endpoint, timeout, time.perf_counter)
            failed += bool(tried.problem)
            _report(tried, width)
    click.echo(f"{len(source.endpoints) - failed} ok, {failed} failed")
    return failed


async def _try(source: Deployment | Flow, endpoint: Endpoint, timeout: float, clock: Callable[[], float]) -> _Outcome:
    began = clock()
    try:
        async with asyncio.timeout(timeout):
            count = await _count(source, endpoint)
    except TimeoutError:
        return _Outcome(endpoint.name, clock() - began, problem=f"took longer than {timeout:g} s")
    except InvalidDocs as error:
        hint = "give its documents an example: Field(examples=[...]), or json_schema_extra={'examples': [...]}"
        return _Outcome(endpoint.name, clock() - began, problem=f"{error}; {hint}")
    except JinaASGIError as error:
        cause = f": {safe_repr(error.__cause__)}" if error.__cause__ is not None else ""
        return _Outcome(endpoint.name, clock() - began, problem=f"{error_text(error)}{cause}")
    return _Outcome(endpoint.name, clock() - began, count)


async def _count(source: Deployment | Flow, endpoint: Endpoint) -> int:
    """Calls an endpoint with its example, and counts the answered documents; a stream is closed after enough of them."""
    doc = document_example(endpoint.input)
    typed = endpoint.parameters
    parameters = value_example(typed.json_schema) if typed is not None and typed.required else None
    if endpoint.kind != "stream":
        return len(await source.call(endpoint.name, [doc], parameters))
    count = 0
    async with aclosing(source.stream(endpoint.name, doc, parameters)) as steps:
        async for _ in steps:
            count += 1
            if count == _OF_STREAM:
                break
    return count


def _report(tried: _Outcome, width: int) -> None:
    word = click.style("failed", fg="red") if tried.problem else click.style("ok    ", fg="green")
    outcome = tried.problem or f"{tried.documents} document{'' if tried.documents == 1 else 's'}"
    click.echo(f"  {word}  {tried.endpoint:<{width}}  {tried.seconds * 1000:>8.1f} ms  {outcome}")


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
