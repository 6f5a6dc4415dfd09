"""What programs take from `jina.helper`: a free port, and names that nothing else has."""

from __future__ import annotations

import socket
import uuid


def random_port() -> int:
    """A port that nobody listens on just now; port=0, or none, lets a server choose without a race."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def random_uuid(use_uuid1: bool = False) -> uuid.UUID:
    """A UUID; `use_uuid1` makes it one of the clock."""
    return uuid.uuid1() if use_uuid1 else uuid.uuid4()


def random_identity(use_uuid1: bool = False) -> str:
    """32 hexadecimal digits, as documents and requests have."""
    return random_uuid(use_uuid1).hex
