"""The call that runs here, which log lines name.

A request sets it in its task, and a batch in the batch's task; the Executor's threads and generators inherit it.
"""

from __future__ import annotations

from contextvars import ContextVar

from jina_asgi.types import Context

#: The context of the call, and the name of the Deployment or Flow that runs it ("" if it is that of the process).
CurrentCall = tuple[Context, str]


class Watch:
    """Whether log lines of this process may name their call: until a `CallFilter` is made, nothing sets `CURRENT`."""

    __slots__ = ("on",)

    def __init__(self) -> None:
        self.on = False


WATCH = Watch()
CURRENT: ContextVar[CurrentCall | None] = ContextVar("jina_asgi.current_call", default=None)
