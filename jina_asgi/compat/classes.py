"""Jina's classes with what Jina has beyond this library's: options without effect are accepted and logged."""

from __future__ import annotations

import inspect
import logging
from asyncio import to_thread
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

from jina_asgi.clients import client
from jina_asgi.clients.asynchronous import AsyncClient
from jina_asgi.excepts import NotSupportedError
from jina_asgi.serving import deployment, flow
from jina_asgi.serving.served import Served
from jina_asgi.settings import AROUND, ClientSettings
from jina_asgi.settings.jina_options import without_those_of_jina, without_unknown

_OURS = {*inspect.signature(client.Client).parameters, *ClientSettings.model_fields}


def Client(**options: Any) -> Any:  # noqa: N802  # Jina's name, and used as a class is
    """As `jina_asgi.Client`, with the same arguments and errors."""
    given = {name: value for name, value in options.items() if value is not None}
    ours = {name: value for name, value in given.items() if name in _OURS}
    rest = {name: value for name, value in given.items() if name not in _OURS}
    return client.Client(**ours, **without_unknown(without_those_of_jina(rest, "Client"), "Client", _OURS))


F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger("jina_asgi")

#: The endpoint that Jina calls to check whether an Executor answers.
DRY_RUN = "_jina_dry_run_"


def get_default_metas() -> dict[str, Any]:
    """The default metas of an Executor."""
    return {"name": "", "description": "", "workspace": "", "py_modules": ""}


def write(function: F | None = None) -> Any:
    """Returns the method unchanged, and logs a warning: state is not replicated here.

    Synchronous methods of an Executor run one at a time anyway, unless it has `allow_concurrent`.
    """

    def marked(method: F) -> F:
        logger.warning("@write on %s changes nothing here: state is not replicated", method.__qualname__)
        return method

    return marked if function is None else marked(function)


_TEXT = (".mmd", ".md", ".txt")


class _SharedMembers(Served):
    """Jina's additional members that a Deployment and a Flow share."""

    settings: Any

    @property
    def port(self) -> Any:
        """The port that it is, or will be, served on; a list if there are several."""
        return self.ports[0] if len(self.ports) == 1 else self.ports

    @port.setter
    def port(self, port: int | list[int]) -> None:
        self._set(port=port)

    @property
    def protocol(self) -> Any:
        """The protocol that it is served over; a list if there are several."""
        protocols = list(self.serving.protocols)
        return protocols[0] if len(protocols) == 1 else protocols

    @protocol.setter
    def protocol(self, protocol: str | list[str]) -> None:
        self._set(protocol=protocol)

    @property
    def env(self) -> dict[str, str] | None:
        """The environment variables that were given for its Executors."""
        return dict(self.settings.env) or None

    @property
    def workspace(self) -> str | None:
        """The folder that was given for its Executors' files."""
        return None if self.settings.workspace is None else str(Path(self.settings.workspace).absolute())

    def _set(self, **options: Any) -> None:
        """Changes how it is served.

        Raises:
            RuntimeError: it is served already. DefinitionError: an unknown or invalid option.
        """
        if self._server is not None:
            raise RuntimeError(f"{self.name} is served already: {', '.join(options)} can be set before it starts")
        said = {name: getattr(self.settings, name) for name in self.settings.model_fields_set}
        self.settings = type(self.settings).of({**said, **options})


def _pods(settings: Any) -> int:
    """The number of processes that Jina would have for one node: replicas of each shard, and heads."""
    around = 1 + sum(getattr(settings, name) is not None for name in AROUND)
    return int(settings.shards * settings.replicas + (around if settings.shards > 1 else 0))


class Deployment(_SharedMembers, deployment.Deployment):
    """`jina_asgi.Deployment` with Jina's additional members."""

    @property
    def num_pods(self) -> int:
        """The number of processes that Jina would have for this."""
        return _pods(self.settings) + 1


class FlowMembers(_SharedMembers, flow.Flow):
    """A Flow with Jina's additional members."""

    @property
    def num_pods(self) -> int:
        """The number of processes that Jina would have for this."""
        nodes = [self[name] for name in self.graph.nodes if name in self]
        return 1 + sum(_pods(node.settings) if isinstance(node, deployment.Deployment) else 1 for node in nodes)

    def __contains__(self, name: str) -> bool:
        return name in self.graph.nodes and self._added[name].source is not None

    def build(self, copy_flow: bool = False, **_: Any) -> Self:
        """This Flow, which is complete after each `add`; a copy with `copy_flow`."""
        return self._copy() if copy_flow else self

    def config_gateway(self, args: Any = None, *, uses: Any = None, copy_flow: bool = True, **options: Any) -> Self:
        """A Flow that is served with these options: `port`, `protocol`, `host`, `title`, `cors` and the like.

        Raises:
            NotSupportedError: `uses` is given: there is no gateway to replace.
            DefinitionError: an unknown or invalid option.
        """
        if args is not None or uses not in (None, "BaseGateway"):
            raise NotSupportedError(
                "config_gateway(uses=...): there is no gateway here to replace; mount the Flow into an application of"
                " your own, which has your routes and middleware: jina_asgi.mount(app, '/prefix', flow)"
            )
        changed = self._copy() if copy_flow else self
        changed._set(**{name: value for name, value in options.items() if value is not None})
        return changed

    def inspect(self, name: str = "inspect", **options: Any) -> Self:
        """A Flow with a node that receives the last node's documents, and that no answer waits for."""
        taken = name in self.graph.nodes
        return self.add(name=f"{name}{len(self)}" if taken else name, floating=True, **options)

    def gather_inspect(self, *_: Any, **__: Any) -> Self:
        """This Flow: no answer waits for the nodes of `inspect`."""
        return self

    def plot(self, output: str | None = None, **_: Any) -> Any:
        """Writes the graph as Mermaid text to a file, and returns this Flow; without a file, returns the text.

        For the name of a picture the text is written to `<output>.mmd`: Jina had such pictures rendered by a server.
        """
        text = super().plot()
        if output is None:
            return text
        path = Path(output)
        if path.suffix not in _TEXT:
            path = path.with_name(f"{path.name}.mmd")
            logger.warning("plot(%r): pictures are not drawn here; the text for Mermaid is in %s", output, path)
        path.write_text(text + "\n", encoding="utf-8")
        return self


class Flow(FlowMembers):
    """`jina_asgi.Flow` with Jina's additional names; with `asyncio=True` it is an AsyncFlow."""

    def __new__(cls, *, asyncio: bool = False, **_: Any) -> Self:
        return super().__new__(AsyncFlow if asyncio else cls)  # type: ignore[return-value]  # a subclass of ours

    def __init__(self, *, asyncio: bool = False, **options: Any) -> None:
        super().__init__(**options)


class AsyncFlow(Flow):
    """A Flow whose `post` is an async generator; `with` and `async with` both serve it, as in Jina."""

    _asking: AsyncClient | None = None

    @property
    def client(self) -> Any:
        """An asynchronous Client of the running server.

        Raises:
            RuntimeError: no server runs.
        """
        asked = super().client
        if self._asking is None or self._asking.address != asked.address:
            self._asking = asked.asynchronous()
        return self._asking

    async def is_flow_ready(self, **options: Any) -> bool:  # type: ignore[override]  # as the Client's own
        """Whether the running server reports that it is ready."""
        return bool(await self.client.is_flow_ready(**options))

    async def __aenter__(self) -> Self:
        await to_thread(self.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        asking, self._asking = self._asking, None
        if asking is not None:
            await asking.close()
        await to_thread(self.close)


_INSTEAD = (
    "there is no gateway here: mount the Deployment or the Flow into an application of your own, which has your routes"
    " and middleware: jina_asgi.mount(app, '/prefix', flow); and call it there: await flow.call('/endpoint', docs)"
)


class Gateway:
    """Can be imported; subclassing or creating one raises an error that says what to do instead."""

    def __init_subclass__(cls, **_: Any) -> NoReturn:
        raise NotSupportedError(f"class {cls.__name__}(Gateway): {_INSTEAD}")

    def __new__(cls, *_: Any, **__: Any) -> NoReturn:
        raise NotSupportedError(f"Gateway(): {_INSTEAD}")
