"""`with Deployment(...)` and `with Flow(...)`: served by uvicorn in a thread, and nothing left of it afterwards."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from docarray import BaseDoc, DocList
from websockets.sync.client import connect

from jina_asgi import Client, DefinitionError, Deployment, Executor, Flow, requests
from jina_asgi.excepts import PortAlreadyUsed
from tests.cli.conftest import environment
from tests.doubles.uvicorn_server import bound, free_port

pytestmark = pytest.mark.processes


class Text(BaseDoc):
    text: str


class Parrot(Executor):
    @requests(on="/shout")
    def shout(self, docs: DocList[Text]) -> DocList[Text]:
        return DocList[Text](Text(text=doc.text.upper()) for doc in docs)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No thread of a server, and no socket that listens."""
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in threading.enumerate() if thread not in before]
    assert not [name for name in left if name in ("jina-asgi-executor", "jina-asgi-flow")], left
    gc.collect()
    listening = [one for one in gc.get_objects() if issubclass(type(one), socket.socket) and _listens(one)]
    assert not listening


def _listens(one: socket.socket) -> bool:
    return one.fileno() >= 0 and bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def shout(served: Deployment | Flow) -> list[str]:
    return [doc.text for doc in served.post("/shout", [Text(text="hi")], return_type=DocList[Text])]


@pytest.mark.parametrize("source", [Deployment(Parrot, protocol="http"), Flow(protocol="http").add(uses=Parrot)])
def test_it_serves_while_with_lasts_and_again(source: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with source as served:
            assert served.is_ready
            assert served.port > 0
            assert ["HI"] == shout(served)
            assert f"answers at http://127.0.0.1:{served.port}" in capsys.readouterr().out
        assert not served.is_ready
        with pytest.raises(RuntimeError, match="is not served"):
            served.post("/shout")


def test_it_serves_at_the_port_that_it_is_given_and_says_nothing_where_quiet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = free_port()
    with Deployment(Parrot, protocol="http", port=port, quiet=True) as served:
        assert port == served.port
        assert 200 == httpx.get(f"http://127.0.0.1:{port}/-/ready").status_code
    assert "" == capsys.readouterr().out


def test_a_port_in_use_is_reported() -> None:
    with bound() as other:
        other.listen()
        with pytest.raises(PortAlreadyUsed, match="in use; choose another"):
            Deployment(Parrot, protocol="http", port=other.getsockname()[1]).start()


def test_each_protocol_has_its_port_and_all_of_them_answer() -> None:
    with Deployment(Parrot, protocol=["websocket", "http"]) as served:
        socket_port, http_port = served.ports
        assert socket_port != http_port
        assert shout(served)  # over the first, which is the WebSocket
        client = Client(f"http://127.0.0.1:{http_port}")
        assert client.is_flow_ready()
        client.close()


def test_websockets_are_not_compressed_unless_that_is_asked_for() -> None:
    for options, expected in ({}, False), ({"uvicorn_kwargs": {"ws_per_message_deflate": True}}, True):
        with Deployment(Parrot, protocol="http", **options) as served:  # type: ignore[arg-type]
            with connect(f"ws://127.0.0.1:{served.port}/-/ws", compression="deflate", proxy=None) as opened:
                assert expected == bool(opened.protocol.extensions)


@pytest.mark.parametrize("protocol", ["grpc", ["grpc", "http"], ["websocket", "grpc"]], ids=str)
def test_it_is_served_over_grpc_alone_and_beside_others(protocol: Any) -> None:
    with Deployment(Parrot, protocol=protocol) as served:
        assert ["HI"] == shout(served)
        assert served.is_flow_ready()
        for spoken, port in zip(served.serving.protocols, served.ports, strict=True):
            if spoken != "websocket":
                with Client(port=port, protocol=spoken) as asked:
                    assert ["HI"] == [doc.text for doc in asked.post("/shout", [Text(text="hi")])]


class Native(Executor):
    @requests(on="/loop")
    async def loop(self, docs: DocList[Text]) -> DocList[Text]:
        return DocList[Text]([Text(text=type(asyncio.get_running_loop()).__module__)])


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_it_is_served_on_uvloop_where_that_is_installed_over_grpc_as_over_http(protocol: Any) -> None:
    pytest.importorskip("uvloop")
    with Deployment(Native, protocol=protocol) as served:
        assert ["uvloop"] == [doc.text for doc in served.post("/loop", [Text(text="")], return_type=DocList[Text])]


def test_a_port_of_grpc_that_is_in_use_is_refused() -> None:
    with bound() as taken:
        taken.listen()
        with pytest.raises(PortAlreadyUsed, match="in use"):
            Deployment(Parrot, port=taken.getsockname()[1]).start()


def test_what_an_executor_raises_is_raised_by_start() -> None:
    class Broken(Parrot):
        def __init__(self, **kwargs: Any) -> None:
            raise ValueError("no weights")

    broken = Deployment(Broken, protocol="http")
    with pytest.raises(ValueError, match="no weights"):
        broken.start()
    assert not broken.is_ready


def test_it_starts_and_closes_in_any_thread_and_closes_twice() -> None:
    served, told = Deployment(Parrot, protocol="http"), list[Any]()

    def live() -> None:
        served.start()
        told.append(shout(served))
        served.close()

    thread = threading.Thread(target=live)
    thread.start()
    thread.join(30)
    served.close()
    assert [["HI"]] == told


def test_it_starts_once() -> None:
    with Deployment(Parrot, protocol="http") as served, pytest.raises(RuntimeError, match="is served already"):
        served.start()


async def test_it_works_where_an_event_loop_runs() -> None:
    """As in a notebook, whose cells run on one."""
    with Deployment(Parrot, protocol="http") as served:
        assert ["HI"] == shout(served)
        async with httpx.AsyncClient() as http:
            assert 200 == (await http.get(f"http://127.0.0.1:{served.port}/-/live")).status_code
    await asyncio.sleep(0)


def test_block_ends_with_its_event() -> None:
    stop, served = threading.Event(), Deployment(Parrot, protocol="http", quiet=True)
    thread = threading.Thread(target=served.block, args=(stop,))
    with served:
        thread.start()
        assert thread.is_alive()
        stop.set()
        thread.join(30)
        assert not thread.is_alive()
        assert served.is_ready, "who started it closes it"


def test_a_wrong_certificate_or_option_of_uvicorn_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"cannot serve with the certificate and key .*nowhere\.pem"):
        Deployment(Parrot, protocol="http", ssl_certfile="nowhere.pem", ssl_keyfile="nowhere.key").start()
    with pytest.raises(DefinitionError, match="nonsense"):
        Deployment(Parrot, protocol="http", uvicorn_kwargs={"nonsense": 1}).start()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """One that signs itself, for a name that is not where the tests serve."""
    folder = tmp_path_factory.mktemp("tls")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=models.example"]
    try:
        subprocess.run(
            [*made, "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("NOT TESTED with TLS: openssl is not there")
    return str(folder / "cert.pem"), str(folder / "key.pem")


def test_it_serves_with_tls_and_its_own_client_trusts_it(certificate: tuple[str, str]) -> None:
    cert, key = certificate
    with Deployment(Parrot, protocol="http", ssl_certfile=cert, ssl_keyfile=key) as served:
        assert ["HI"] == shout(served)
        with pytest.raises(httpx.ConnectError):  # nobody else does
            httpx.get(f"https://127.0.0.1:{served.port}/-/live")


PROGRAM = """
import os, signal, threading, time
from jina_asgi import Client, Deployment, Executor

class Parrot(Executor): ...

before = signal.getsignal(signal.SIGTERM)
served = Deployment(Parrot, protocol="http", quiet=True)

def end():
    while signal.getsignal(signal.SIGTERM) is before or not served.is_ready:  # what sends no event
        time.sleep(0.01)
    os.kill(os.getpid(), {number})

threading.Thread(target=end).start()
{body}
assert signal.getsignal(signal.SIGTERM) is before
assert not served.is_ready
print("clean")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("body", ["with served:\n    served.block()", "served.block()"])
def test_a_signal_ends_block_and_the_program_goes_on(number: int, body: str) -> None:
    program = PROGRAM.format(number=int(number), body=body)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, env=environment(), text=True, check=False, timeout=60
    )
    assert (0, "clean\n", "") == (done.returncode, done.stdout, done.stderr)
