"""Errors that a Client raises, under Jina's names.

    BaseJinaException
    ├── BadClient            the server has no such endpoint, or its answer does not fit `return_type`
    │   ├── BadClientInput       `inputs`, or an option of the call, is invalid
    │   └── BadClientCallback    a callback raised
    ├── BadServer            the server answered with an error
    ├── NotSupportedError    an option that this library knows and cannot serve
    └── PortAlreadyUsed      another process listens on the port

A server that cannot be reached, is busy, or is late raises Python's own `ConnectionError`, as in Jina. The server's
error, one of `jina_asgi.errors`, is the `__cause__` of each.
"""

from __future__ import annotations

from typing import Any


class BaseJinaException(Exception):
    """The base class of a Client's errors."""


class BadClient(BaseJinaException):
    """The server has no such endpoint, or its answer does not fit `return_type`."""


class BadClientInput(BadClient):
    """`inputs`, or an option of the call, is invalid."""


class BadClientCallback(BadClient):
    """A callback raised; its exception is the cause."""


class BadServer(BaseJinaException):
    """The server answered with an error.

    `header` is that of its answer, with `status.code` and `status.exception`; as in Jina it is also what `args` hold.
    """

    def __init__(self, message: str, header: Any = None) -> None:
        super().__init__(message if header is None else header)
        self.message, self.header = message, header

    def __str__(self) -> str:
        return str(self.message)


class NotSupportedError(BaseJinaException):
    """An option that this library knows and cannot serve."""


class PortAlreadyUsed(BaseJinaException, RuntimeError):
    """Another process listens on the requested port."""


class AddressInUse(PortAlreadyUsed):
    """Another process has taken the address that this server listened at before."""
