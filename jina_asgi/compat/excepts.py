"""Jina's exceptions that nothing here raises, for programs that name them in an `except`."""

from __future__ import annotations

from jina_asgi.excepts import BadServer, BaseJinaException


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
