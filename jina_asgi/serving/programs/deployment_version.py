"""One version of a Deployment, by its code and options, in the pool host."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from jina_asgi.concurrency.grace import CLOSING
from jina_asgi.errors import ExecutorError, JinaASGIError
from jina_asgi.errors._raised import error_text, loggable
from jina_asgi.errors._shown import class_name
from jina_asgi.errors.load_failure import LoadFailure
from jina_asgi.processes.handshake import HostRequest
from jina_asgi.protocols.frames.server import FrameServer
from jina_asgi.runners.observe import ObserveRunner
from jina_asgi.serving.assembly import assemble_pool
from jina_asgi.settings import DeploymentSettings

logger = logging.getLogger("jina_asgi")


def as_library_error(error: Exception) -> JinaASGIError:
    """Converts any error to one of this library that can be sent to a worker; logs it if it was unexpected."""
    if isinstance(error, JinaASGIError):
        return error
    logger.error("the pool host failed", exc_info=loggable(error))
    return ExecutorError(error_text(error), raised=class_name(error))


class DeploymentVersion:
    """One version of a Deployment, by its code and options; lives as long as a worker uses it."""

    def __init__(self, request: HostRequest) -> None:
        assert request.uses is not None
        self.ask, self.settings = request, DeploymentSettings.of(request.options)
        self.name, self.uses = self.settings.name, request.uses
        self.runner: ObserveRunner = assemble_pool(
            request.uses, self.settings, request.path, changed=self.report_health, costs=False
        )
        self.users = 0
        self.connections: set[FrameServer] = set()
        self.superseded = False
        #: The version before this one, while this one has not loaded.
        self.older: DeploymentVersion | None = None
        self.failure: JinaASGIError | None = None
        self._load_failure: LoadFailure | None = None
        self.ready = asyncio.Event()  # set when it has loaded, or failed to
        self.unused = asyncio.Event()
        self._ending = asyncio.Event()
        self._living: asyncio.Task[None] | None = None

    async def live(self) -> None:
        """Loads, serves until `end` is called, and unloads. If `end` is called while it loads, loading is cancelled."""
        living = self._living = asyncio.current_task()
        assert living is not None
        limit: asyncio.TimerHandle | None = None
        if self._ending.is_set():
            return
        try:
            async with self.runner.lifespan():
                self.ready.set()
                await self._ending.wait()
                # Each part of the shutdown has a limit of its own; this is the limit of the whole.
                limit = asyncio.get_running_loop().call_later(self.settings.grace + CLOSING, living.cancel)
        except Exception as error:  # noqa: BLE001  # loading may raise anything; it is logged, and sent to the workers that wait
            self.failure = as_library_error(error)
            self._load_failure = LoadFailure.logged(self.failure, f"{self.name} could not be loaded")
        finally:
            self.ready.set()
            if limit is not None:
                limit.cancel()

    def end(self) -> None:
        self._ending.set()
        if self._living is not None and not self.ready.is_set():
            self._living.cancel()

    @property
    def works(self) -> bool:
        """Whether it has loaded, and `end` was not called."""
        return self.ready.is_set() and self.failure is None and not self._ending.is_set()

    def report_health(self) -> None:
        """Reports to every connected worker whether calls can be answered."""
        unhealthy_reason = self.runner.unhealthy_reason()
        for connection in self.connections:
            connection.report_health(unhealthy_reason)

    def status(self) -> dict[str, Any]:
        failure = None if self._load_failure is None else self._load_failure.status()
        return {"uses": str(self.uses), "users": self.users, "failure": failure, **self.runner.status()}
