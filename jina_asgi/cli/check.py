"""`jina-asgi check`: runs every endpoint once, on an example made from its schema."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

import click

from jina_asgi.documents._examples import document_example, value_example
from jina_asgi.errors import InvalidDocs, JinaASGIError
from jina_asgi.errors._raised import error_text
from jina_asgi.errors._shown import safe_repr
from jina_asgi.serving.asgi import source_of
from jina_asgi.serving.deployment import Deployment
from jina_asgi.serving.flow import Flow
from jina_asgi.types import Endpoint

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
