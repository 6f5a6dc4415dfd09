"""Jina's enumerations, as the words that this library takes."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class _Words(StrEnum):
    @classmethod
    def from_string(cls, text: str) -> Self:
        """The member of this name, in any case.

        Raises:
            ValueError: there is none.
        """
        for member in cls:
            if member.name == text.upper():
                return member
        raise ValueError(f"{text!r} is no {cls.__name__}; expected one of {', '.join(member.name for member in cls)}")


class ProtocolType(_Words):
    """What is spoken."""

    GRPC = "grpc"
    HTTP = "http"
    WEBSOCKET = "websocket"


GatewayProtocolType = ProtocolType


class PollingType(_Words):
    """Which shards a call goes to."""

    ANY = "ANY"
    ALL = "ALL"
