"""Whether this process writes figures, for code that imports nothing of them while it does not."""

from __future__ import annotations


class Switch:
    """The folder of the server's figures, "" while this process writes none; its replicas write there too."""

    __slots__ = ("folder",)

    def __init__(self) -> None:
        self.folder = ""


SWITCH = Switch()
