"""A Deployment or a Flow served in a thread of this process: Jina's `with flow:` and `flow.block()`."""

from __future__ import annotations

import signal
import threading
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from pydantic import BaseModel

from jina_asgi.errors import RuntimeFailToStart
from jina_asgi.errors._raised import error_text
from jina_asgi.excepts import PortAlreadyUsed
from jina_asgi.executors.import_path import check_not_again
from jina_asgi.observability import log_config
from jina_asgi.serving.source import Source
from jina_asgi.settings import ServingSettings
from jina_asgi.settings.jina_options import as_jina

if TYPE_CHECKING:
    from jina_asgi.clients.posts import AnswerOptions, PostOptions, ReadyOptions
    from jina_asgi.clients.sync import SyncClient
    from jina_asgi.serving.server_thread import ServingThread, Waitable

L = TypeVar("L", bound=list[Any])
M = TypeVar("M", bound=BaseModel)


class Served(Source):
    """A source that can also be served by itself, with Jina's methods: `with`, `start`, `close`, `block`, `post`, `client`."""

    def __init__(self) -> None:
        super().__init__()
        self._server: ServingThread | None = None

    @property
    @abstractmethod
    def serving(self) -> ServingSettings:
        """The options of serving."""

    @property
    @abstractmethod
    def grace(self) -> float:
        """Seconds that running calls have when serving ends."""

    def start(self) -> Self:
        """Loads, and serves in a thread; returns when it answers.

        Raises:
            DefinitionError: an extra is missing that a protocol needs; or this is a replica, in which the program is run
                again to find its classes.
            PortAlreadyUsed: the port is in use. Whatever loading raises; in a program written for Jina that is
                the cause of a RuntimeFailToStart.
        """
        if self._server is not None:
            raise RuntimeError(f"{self.name} is served already, at {self._server.urls[0]}")
        check_not_again(self.name)
        from jina_asgi.serving.server_thread import ServingThread  # with httpx

        self.configure_log(with_access=self.access_log)
        server = ServingThread(self, self.serving, self.grace)
        try:
            server.start()
        except (RuntimeFailToStart, PortAlreadyUsed):
            raise
        except Exception as error:
            if not as_jina():
                raise
            raise RuntimeFailToStart(f"{self.name} failed to start: {error_text(error)}") from error
        self._server = server
        if not self.serving.quiet:
            where = ", ".join(self._server.urls)  # which may have been chosen at the start
            page, what = self._server.page, "page" if self.serving.playground else "documentation"
            shown = "" if page is None else f" (its {what}: {page})"
            print(f"{self.name} answers at {where}{shown}", flush=True)  # noqa: T201  # as Jina does
        return self

    @property
    def access_log(self) -> bool:
        return self.serving.access_log

    def configure_log(self, *, with_access: bool = False) -> None:
        log_config.configure(self.serving, with_access=with_access)

    def close(self) -> None:
        """Finishes open calls, and stops; a second call does nothing."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def block(self, stop_event: Waitable | None = None) -> None:
        """Waits for SIGINT, SIGTERM or `stop_event`, or until the server fails; starts it if necessary.

        Raises:
            The server's failure; as `start`.
        """
        starts = self._server is None
        try:
            with _signals():
                if starts:
                    self.start()
                assert self._server is not None
                self._server.wait(stop_event)
        except _Terminated:
            pass
        finally:
            if starts:
                self.close()

    @property
    def port(self) -> int:
        """Its port; 0: a port is chosen when it starts."""
        return self._server.port if self._server is not None else self.serving.ports[0]

    @property
    def ports(self) -> list[int]:
        """The port of each protocol, as `port`."""
        return self._server.ports if self._server is not None else self.serving.ports

    @property
    def host(self) -> str:
        """The address that it listens on."""
        return self.serving.address

    @property
    def protocol(self) -> str:
        """Its first protocol."""
        return self.serving.protocols[0]

    @property
    def is_ready(self) -> bool:
        """Whether it is served and can answer."""
        return self._server is not None and self._server.is_ready

    @property
    def client(self) -> SyncClient:
        """A Client of the running server.

        Raises:
            RuntimeError: it is not served.
        """
        if self._server is None:
            raise RuntimeError(f"{self.name} is not served; use it as `with ...:`, or call start() first")
        return self._server.client

    @overload
    def post(self, on: str, inputs: Any = None, *, return_type: type[L], **options: Unpack[AnswerOptions]) -> L: ...
    @overload
    def post(self, on: str, inputs: BaseModel, *, return_type: type[M], **options: Unpack[AnswerOptions]) -> M: ...
    @overload
    def post(
        self, on: str, inputs: Any = None, *, return_type: type[M], **options: Unpack[AnswerOptions]
    ) -> M | list[M]: ...
    @overload
    def post(self, on: str, inputs: Any = None, **options: Unpack[PostOptions]) -> Any: ...
    def post(self, on: str, inputs: Any = None, **options: Any) -> Any:
        """Calls the running server, as `Client.post` does."""
        return self.client.post(on, inputs, **options)

    def index(self, inputs: Any = None, **options: Unpack[PostOptions]) -> Any:
        """`post("/index", ...)`."""
        return self.post("/index", inputs, **options)

    def search(self, inputs: Any = None, **options: Unpack[PostOptions]) -> Any:
        """`post("/search", ...)`."""
        return self.post("/search", inputs, **options)

    def update(self, inputs: Any = None, **options: Unpack[PostOptions]) -> Any:
        """`post("/update", ...)`."""
        return self.post("/update", inputs, **options)

    def delete(self, inputs: Any = None, **options: Unpack[PostOptions]) -> Any:
        """`post("/delete", ...)`."""
        return self.post("/delete", inputs, **options)

    def is_flow_ready(self, **options: Unpack[ReadyOptions]) -> bool:
        """Whether the running server reports that it is ready."""
        return bool(self.client.is_flow_ready(**options))


class _Terminated(BaseException):
    """A signal ends the main thread's wait."""


@contextmanager
def _signals() -> Iterator[None]:
    """SIGINT and SIGTERM raise `_Terminated` if this is the main thread, which receives signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(*_: Any) -> None:
        raise _Terminated

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, terminate) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
