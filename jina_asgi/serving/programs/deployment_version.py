"""One Deployment in the pool host, as one version of its code and options."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from jina_asgi.concurrency.grace import CLOSING
from jina_asgi.errors import ExecutorError, JinaASGIError
from jina_asgi.errors._raised import described, loggable
from jina_asgi.errors._shown import kind_of
from jina_asgi.errors.load_failure import Failure
from jina_asgi.processes.handshake import Ask
from jina_asgi.protocols.frames.server import FrameServer
from jina_asgi.runners.observe import ObserveRunner
from jina_asgi.serving.assembly import assemble_pool
from jina_asgi.settings import DeploymentSettings

logger = logging.getLogger("jina_asgi")


def own(error: Exception) -> JinaASGIError:
    """An error as a worker can be told it."""
    if isinstance(error, JinaASGIError):
        return error
    logger.error("the pool host failed", exc_info=loggable(error))
    return ExecutorError(described(error), raised=kind_of(error))


class Generation:
    """One Deployment as one version of its code and options; lives until nobody uses it."""

    def __init__(self, ask: Ask) -> None:
        assert ask.uses is not None
        self.ask, self.settings = ask, DeploymentSettings.of(ask.options)
        self.name, self.uses = self.settings.name, ask.uses
        self.runner: ObserveRunner = assemble_pool(
            ask.uses, self.settings, ask.path, changed=self.report_health, costs=False
        )
        self.users = 0
        self.connections: set[FrameServer] = set()
        self.superseded = False
        #: The version before, while this one does not work.
        self.older: Generation | None = None
        self.failure: JinaASGIError | None = None
        self._told: Failure | None = None
        self.ready = asyncio.Event()  # or failed
        self.unused = asyncio.Event()
        self._ending = asyncio.Event()
        self._living: asyncio.Task[None] | None = None

    async def live(self) -> None:
        """Load, serve until told to end, unload. Told so while it loads, it is cancelled: nobody waits for it."""
        living = self._living = asyncio.current_task()
        assert living is not None
        limit: asyncio.TimerHandle | None = None
        if self._ending.is_set():
            return
        try:
            async with self.runner.lifespan():
                self.ready.set()
                await self._ending.wait()
                # Each part of the end has a limit of its own; this is that of the whole.
                limit = asyncio.get_running_loop().call_later(self.settings.grace + CLOSING, living.cancel)
        except Exception as error:  # noqa: BLE001  # whatever loading raises; told to who asks, and logged
            self.failure = own(error)
            self._told = Failure.logged(self.failure, f"{self.name} could not be loaded")
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
        """Whether it has loaded, and was not told to end."""
        return self.ready.is_set() and self.failure is None and not self._ending.is_set()

    def report_health(self) -> None:
        """Tell every worker whether calls can be answered."""
        trouble = self.runner.trouble()
        for connection in self.connections:
            connection.report_health(trouble)

    def status(self) -> dict[str, Any]:
        failure = None if self._told is None else self._told.status()
        return {"uses": str(self.uses), "users": self.users, "failure": failure, **self.runner.status()}
