"""Exceptions of Jina's that nothing here raises: a program may name them in an `except`."""

from __future__ import annotations

from jina_asgi.excepts import BadServer, BaseJinaException


class BadImageNameError(BaseJinaException):
    """A container's image has a wrong name."""


class BadRequestType(TypeError, BaseJinaException):
    """A request is none."""


class BadServerFlow(BadServer):
    """A Flow's server answered with an error."""


class DockerVersionError(BaseJinaException):
    """Docker is too old."""


class NoAvailablePortError(BaseJinaException):
    """No port is free."""


class NoContainerizedError(BaseJinaException):
    """An export needs containers."""


class RuntimeRunForeverEarlyError(BaseJinaException):
    """A server ended too early."""


class RuntimeTerminated(KeyboardInterrupt):
    """A server was ended."""
