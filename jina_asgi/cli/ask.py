"""`jina-asgi ping` and `jina-asgi client`: call a server, over the protocol in its address or the detected one."""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any, NoReturn

import click
import httpx
import orjson
from pydantic import create_model

from jina_asgi.clients.address import Address, address_of
from jina_asgi.clients.client import Client
from jina_asgi.errors import DefinitionError
from jina_asgi.excepts import NotSupportedError

_PAUSE = 1.0  # seconds between two attempts, as in Jina
_LOOK = 5.0  # seconds for detecting a server's protocol


@click.command(short_help="Check whether a server can answer.")
@click.argument("target", type=click.Choice(["executor", "gateway", "flow"]))
@click.argument("host")
@click.option("--timeout", default=3000, show_default=True, help="Milliseconds that one attempt may take.")
@click.option("--attempts", default=1, show_default=True, type=click.IntRange(1), help="The number of attempts.")
@click.option(
    "--min-successful-attempts",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="How many of them must succeed.",
)
def ping(target: str, host: str, timeout: int, attempts: int, min_successful_attempts: int) -> int:
    """Check whether an Executor, a gateway or a whole Flow at HOST[:PORT] can answer; exits with 1 if it cannot.

    The protocol, HTTP or gRPC, is detected, unless HOST has a scheme, as in grpc://HOST:PORT.

    \b
    jina-asgi ping executor 127.0.0.1:8080
    jina-asgi ping flow http://models:8000/search --attempts 5 --min-successful-attempts 3
    """
    address = _detect_address(host)
    if address.protocol == "websocket":
        raise NotSupportedError(f"{host}: a WebSocket is not pinged; give its HTTP port, http://host:port")
    if address.others:
        raise NotSupportedError(f"{host}: expected one server to ping; ping each of them")
    url = address.url if address.protocol == "http" else f"grpc://{address.target}"
    good = 0
    for attempt in range(attempts):
        began = time.perf_counter()
        problem = _problem(address, target, timeout / 1000)
        good += not problem
        word = problem or f"ready in {(time.perf_counter() - began) * 1000:.1f} ms"
        click.echo(f"{target} at {url}: {word} ({attempt + 1} of {attempts})")
        if good >= min_successful_attempts:
            return 0
        if attempt + 1 < attempts:
            time.sleep(_PAUSE)
    click.echo(f"{good} of {attempts} attempts succeeded, expected {min_successful_attempts}", err=True)
    return 1


def _detect_address(host: str) -> Address:
    """The address for a host; without a scheme, over HTTP if the server answers that, else over gRPC.

    If no server listens there it is gRPC, provided that it is installed.
    """
    address = address_of(host, None, "grpc")
    if address.protocol != "grpc" or address.others or "://" in host:
        return address
    plain = address_of(host, None, "http")
    try:
        with httpx.Client(timeout=_LOOK, trust_env=False) as http:
            http.get(plain.url)
    except httpx.ConnectError:
        return plain if find_spec("grpc") is None else address
    except httpx.TransportError:  # gRPC servers close the connection at the first line
        return address
    return plain


def _problem(address: Address, target: str, timeout: float) -> str:
    """Why the server cannot answer calls; empty if it can."""
    if address.protocol == "grpc":
        try:
            from jina_asgi.protocols.grpc.remote import ping_problem  # needs grpcio, an extra
        except ImportError as error:
            raise NotSupportedError(
                f"gRPC needs the extra grpc: pip install 'jina-asgi[grpc]'; for HTTP write the scheme, http://... ({error})"
            ) from error
        return ping_problem(address.target, whole=target == "flow", timeout=timeout, tls=address.tls)
    url = address.url
    try:
        with httpx.Client(timeout=timeout, trust_env=False) as http:
            if target == "flow":
                answer = http.get(f"{url}/dry_run")
                answered = answer.json() if answer.status_code == 200 else {}
                return (
                    ""
                    if answered.get("code") == 0
                    else str(answered.get("description") or f"HTTP {answer.status_code}")
                )
            answer = http.get(f"{url}/-/ready")
            if answer.status_code == 404:  # a real Jina's, which is ready when it answers
                answer = http.get(url)
            return "" if answer.is_success else f"HTTP {answer.status_code} {answer.text[:200]}"
    except (httpx.HTTPError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


@click.command(short_help="Call an endpoint, and print its documents.")
@click.argument("host")
@click.option("--on", required=True, metavar="/ENDPOINT", help="The endpoint.")
@click.option(
    "--data",
    default=None,
    metavar="JSON|@FILE|-",
    help="A document, a list of them, or one on each line; also from a file, or from standard input.",
)
@click.option("--parameters", default=None, metavar="JSON", help="The parameters of the call.")
@click.option("--stream", is_flag=True, help="Call a streaming endpoint with one document.")
@click.option("--timeout", default=None, type=float, help="The time limit of a request in seconds.")
@click.option("--header", multiple=True, metavar="NAME:VALUE", help="A header of every request; can be repeated.")
def client(
    host: str,
    on: str,
    data: str | None,
    parameters: str | None,
    stream: bool,
    timeout: float | None,
    header: tuple[str, ...],
) -> None:
    """Call an endpoint of the server at HOST, and print its answer, one document on each line.

    The protocol, HTTP or gRPC, is detected, unless HOST has a scheme, as in grpc://HOST:PORT.

    \b
    jina-asgi client localhost:12345 --on /encode --data '{"text": "hi"}'
    cat docs.jsonl | jina-asgi client http://localhost:8000/lm --on /encode --data -
    """
    requests = list(_requests(_documents(data)))
    given = _object("--parameters", parameters) if parameters is not None else None
    headers = dict(_header(text) for text in header)
    options: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
    address = _detect_address(host)
    with Client(address.url if address.protocol == "http" else host, headers=headers) as asked:
        if stream:
            if [len(docs) for docs in requests] != [1]:
                raise DefinitionError(f"--stream takes one document as --data, got {sum(map(len, requests))}")
            for doc in asked.stream_doc(on, requests[0][0], given, **options):
                _print(doc)
            return
        for docs in requests or [[]]:
            for doc in asked.post(on, docs or None, parameters=given, results_in_order=True, **options):
                _print(doc)


def _print(doc: Any) -> None:
    """Prints a document's fields; arrays as lists, bytes in base64."""
    fields = {name: value for name, value in vars(doc).items() if name in doc.model_fields_set}
    line = orjson.dumps(fields, default=_in_base64, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _in_base64(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _requests(documents: Iterable[dict[str, Any]]) -> Iterator[list[Any]]:
    """Groups consecutive documents that have the same fields, as the documents of one request must have."""
    for names, alike in groupby(documents, key=lambda fields: tuple(sorted(fields))):
        if wrong := [name for name in names if name.startswith("_")]:
            raise DefinitionError(f"--data: a document has no field {wrong[0]!r}: names start with a letter")
        wanted: dict[str, Any] = dict.fromkeys(names, (Any, ...))
        model: Any = create_model("Document", **wanted)
        yield [model(**values) for values in alike]


def _documents(data: str | None) -> Iterator[dict[str, Any]]:
    if data is None:
        return
    if data == "-":
        text = sys.stdin.buffer.read()
    elif data.startswith("@"):
        try:
            text = Path(data[1:]).read_bytes()
        except OSError as error:
            raise DefinitionError(f"--data {data}: {error.strerror}") from error
    else:
        text = data.encode()
    for item in _values(text):
        if not isinstance(item, dict):
            raise DefinitionError(f"--data: expected a document, a JSON object, got {item!r}")
        yield item


def _values(text: bytes) -> list[Any]:
    """Reads one JSON value (a list is several), or one value from each line."""
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        try:
            return [orjson.loads(line) for line in lines[1:] and lines] or _no_json(error)
        except orjson.JSONDecodeError as wrong:
            return _no_json(wrong)
    return found if isinstance(found, list) else [found]


def _no_json(error: Exception) -> NoReturn:
    raise DefinitionError(f"--data: expected JSON, or a JSON document on each line: {error}") from error


def _object(option: str, text: str) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise DefinitionError(f"{option}: expected JSON: {error}") from error
    if not isinstance(found, dict):
        raise DefinitionError(f"{option}: expected a JSON object, got {found!r}")
    return found


def _header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    if not separator:
        raise DefinitionError(f"--header {text!r}: expected NAME:VALUE")
    return name.strip(), value.strip()
