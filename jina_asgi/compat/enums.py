"""Jina's enumerations; their values are the names that this library accepts."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class _StringEnum(StrEnum):
    @classmethod
    def from_string(cls, text: str) -> Self:
        """The member with this name, in any case.

        Raises:
            ValueError: there is no such member.
        """
        for member in cls:
            if member.name == text.upper():
                return member
        raise ValueError(
            f"{text!r} is not a {cls.__name__}; expected one of {', '.join(member.name for member in cls)}"
        )


class ProtocolType(_StringEnum):
    """The protocols of a server."""

    GRPC = "grpc"
    HTTP = "http"
    WEBSOCKET = "websocket"


GatewayProtocolType = ProtocolType


class PollingType(_StringEnum):
    """The shards that a call goes to."""

    ANY = "ANY"
    ALL = "ALL"
