"""The names of `jina.helper` for free ports and unique identifiers."""

from __future__ import annotations

import socket
import uuid


def random_port() -> int:
    """A port that is free at the moment; port=0, or none, lets a server choose one without a race."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def random_uuid(use_uuid1: bool = False) -> uuid.UUID:
    """A random UUID; one made from the clock with `use_uuid1`."""
    return uuid.uuid1() if use_uuid1 else uuid.uuid4()


def random_identity(use_uuid1: bool = False) -> str:
    """A random identifier of 32 hexadecimal digits, as documents and requests have."""
    return random_uuid(use_uuid1).hex
