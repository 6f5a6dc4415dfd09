"""Whether this process writes figures, for code that imports nothing of them while it does not."""

from __future__ import annotations

from collections.abc import Callable


class Switch:
    """What is on.

    Attributes:
        folder: that of the server's figures, "" while this process writes none; its replicas write there too.
        monitored: called with what an Executor has timed: its Deployment's name, the name and the description of the
            metric, and seconds.
    """

    __slots__ = ("folder", "monitored")

    def __init__(self) -> None:
        self.folder = ""
        self.monitored: Callable[[str, str, str, float], None] | None = None


SWITCH = Switch()
