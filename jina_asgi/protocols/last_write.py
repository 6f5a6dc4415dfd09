"""Which stream wrote last, over any protocol: one that never waits lets the event loop run others now and then."""

from __future__ import annotations

from typing import Any

#: Seconds of one stream's writing after which others get their turn.
LONGEST_TURN = 0.001


class LastWrite:
    """The writer, and the time since which nothing else wrote.

    One object, and no attributes of a class: to change those clears the caches of all its methods.
    """

    __slots__ = ("since", "writer")

    def __init__(self) -> None:
        self.writer: Any = None
        self.since = 0.0


last_write = LastWrite()
