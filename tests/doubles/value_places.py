"""The same Executor served from several places: the process that serves, behind frames, another server, a pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from starlette.applications import Starlette

from jina_asgi import Deployment, JinaASGI, mount
from jina_asgi.protocols.frames.pipe import pipe_pair
from jina_asgi.protocols.http.asgi_transport import ASGITransport
from jina_asgi.protocols.remote.server import HttpRunner
from jina_asgi.runners.wrappers import ObserveRunner
from jina_asgi.types import Runner
from tests.doubles.uvicorn_server import Serving, free_ports
from tests.doubles.value_kinds import Values

PLACES = ("worker", "frames", "external", "pool")


class Across(Deployment):
    """A Deployment whose Runner is reached across something."""

    def __init__(self, uses: Any, across: Callable[[Runner], Runner]) -> None:
        super().__init__(uses)
        self.runner = ObserveRunner(across(self.runner), self.name)


def elsewhere(_: Runner) -> Runner:
    """The same Executor at another server, which loads when it is asked."""
    return HttpRunner("http://elsewhere", transport=ASGITransport(JinaASGI(Values, expose_errors=True)))


class Place(NamedTuple):
    """Where a place is served."""

    url: str
    grpc: int


@contextmanager
def served() -> Iterator[dict[str, Place]]:
    """Serve `Values` from each place, all on one port."""
    deployments = {
        "worker": Deployment(Values),
        "frames": Across(Values, pipe_pair),
        "external": Across(Values, elsewhere),
        "pool": Deployment("tests.doubles.value_kinds.Values", replicas=1),
    }
    app, ports = Starlette(), dict(zip(PLACES, free_ports(len(PLACES)), strict=True))
    for name, deployment in deployments.items():
        mount(app, f"/{name}", deployment, wait_ready=True, expose_errors=True, grpc=f"127.0.0.1:{ports[name]}")
    with Serving(app) as server:
        yield {name: Place(f"{server.url}/{name}", ports[name]) for name in PLACES}
