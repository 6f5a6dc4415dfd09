"""Jina's enumerations, whose values are the names that this library accepts, and the exceptions that nothing here raises."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from jina_asgi.excepts import BadServer, BaseJinaException


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


class BadImageNameError(BaseJinaException):
    """The name of a container image is wrong."""


class BadRequestType(TypeError, BaseJinaException):
    """A request has the wrong type."""


class BadServerFlow(BadServer):
    """The server of a Flow answered with an error."""


class DockerVersionError(BaseJinaException):
    """The version of Docker is too old."""


class NoAvailablePortError(BaseJinaException):
    """No port is free."""


class NoContainerizedError(BaseJinaException):
    """An export needs containers."""


class RuntimeRunForeverEarlyError(BaseJinaException):
    """A server ended too early."""


class RuntimeTerminated(KeyboardInterrupt):
    """A server was ended."""
