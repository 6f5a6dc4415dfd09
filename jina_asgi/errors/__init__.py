"""The error tree: each class says whose fault it is. Imports no other folder of the package.

    JinaASGIError
    ├── InvalidRequest          400  the bytes are not what this protocol carries
    │   ├── InvalidDocs         422  well formed, but not what the endpoint's schema asks for
    │   ├── TooLarge            413  over a limit
    │   └── UnsupportedMedia    415  a content type that is not served here
    ├── Unauthenticated         401  the `auth` hook knows no such caller
    ├── UnknownEndpoint         404  no endpoint of that name, and no '/default'
    ├── ExecutorInputError      422  raised by an Executor: its message is meant for the caller
    ├── ExecutorHTTPError       400  or any other: an Executor raised Starlette's or FastAPI's HTTPException (it is one, too)
    ├── ExecutorError           500  an Executor raised, or broke its own promise
    │   └── BatchFailed         500  it did so in a batch of several calls; which call caused it is not known
    ├── Unavailable             503  try again
    │   ├── Overloaded          503  the queue is full
    │   ├── NotReady            503  loading, draining, stopped or failed
    │   └── ReplicaDied         503  the process that ran the call is gone
    ├── DeadlineExceeded        504  the caller's deadline passed
    ├── ProtocolError           500  the other side of a connection broke its rules
    └── DefinitionError         500  an Executor class, or an option, is written wrong (also a TypeError)

Each class carries its HTTP status and gRPC code; instances carry facts as attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

from starlette.exceptions import HTTPException

#: The gRPC code of an HTTP status; other 4xx map to FAILED_PRECONDITION, other 5xx to INTERNAL.
GRPC_CODES: Mapping[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    416: "OUT_OF_RANGE",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class JinaASGIError(Exception):
    """The base of every error this library raises."""

    status: int = 500
    grpc_code: str = "INTERNAL"
    retriable: ClassVar[bool] = False
    #: The message for clients where the error's own may hold private data; None: the message is safe.
    public: ClassVar[str | None] = None

    #: The node of a Flow that raised this, 'outer/inner' where Flows nest; '' outside of a Flow.
    node: str = ""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def facts(self) -> Mapping[str, Any]:
        """Return the constructor's keyword arguments that rebuild this error on the other side of a wire."""
        return {}


class InvalidRequest(JinaASGIError):
    """The bytes are not what this protocol carries."""

    status = 400
    grpc_code = "INVALID_ARGUMENT"


class InvalidDocs(InvalidRequest):
    """Docs or parameters are well formed but not what the schema asks for.

    `errors` is a list as FastAPI and pydantic write it: each entry has `type`, `loc`, `msg` and `input`.
    """

    status = 422

    def __init__(self, message: str, errors: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.errors = [dict(error) for error in errors]

    def facts(self) -> Mapping[str, Any]:
        return {"errors": self.errors}


class TooLarge(InvalidRequest):
    """A body, a number of docs, a depth or a frame is over its limit."""

    status = 413
    grpc_code = "RESOURCE_EXHAUSTED"


class UnsupportedMedia(InvalidRequest):
    """The content type, or content encoding, is none that is served here."""

    status = 415


class Unauthenticated(JinaASGIError):
    """The `auth` hook answered None."""

    status = 401
    grpc_code = "UNAUTHENTICATED"


class UnknownEndpoint(JinaASGIError):
    """No endpoint has that name, and there is no '/default' to take its place."""

    status = 404
    grpc_code = "UNIMPLEMENTED"

    @classmethod
    def of(cls, name: str, endpoint: str, known: Iterable[str]) -> Self:
        """Return the error of a Runner that has the `known` endpoints only."""
        return cls(f"{name} has no endpoint {endpoint!r} and no '/default'; it has {', '.join(known) or 'none'}")


class ExecutorInputError(JinaASGIError):
    """For an Executor to raise: the caller's input is at fault, and the message is written for the caller."""

    status = 422
    grpc_code = "INVALID_ARGUMENT"


class ExecutorHTTPError(JinaASGIError, HTTPException):
    """Replaces an HTTPException that an Executor raised: the caller gets its status, detail and headers.

    It is an HTTPException too, so that a host's own route may let it pass.
    """

    status = 400
    grpc_code = "INVALID_ARGUMENT"

    def __init__(
        self, message: str, *, status: int = 400, detail: Any = None, headers: Mapping[str, str] | None = None
    ) -> None:
        Exception.__init__(self, message)
        self.message = message
        self.status = self.status_code = status
        self.grpc_code = GRPC_CODES.get(status, "FAILED_PRECONDITION" if status < 500 else "INTERNAL")
        self.detail: Any = message if detail is None else detail
        self.headers = dict(headers) if headers else None

    def facts(self) -> Mapping[str, Any]:
        return {"status": self.status, "detail": self.detail, "headers": self.headers}


class ExecutorError(JinaASGIError):
    """An Executor raised, or returned a value of the wrong type. The cause is chained, and logged under its id."""

    status = 500
    public = "the executor failed; the log has the cause under this error's id"

    def __init__(self, message: str, *, executor: str = "", endpoint: str = "", raised: str = "") -> None:
        super().__init__(message)
        self.executor, self.endpoint = executor, endpoint
        #: The class name of what the Executor raised, where it raised.
        self.raised = raised

    def facts(self) -> Mapping[str, Any]:
        return {"executor": self.executor, "endpoint": self.endpoint, "raised": self.raised}


class BatchFailed(ExecutorError):
    """A batch of several calls failed, and which call caused it is not known; a retry may succeed."""

    retriable = True
    public = "the batch that this call was part of failed; try again"


class Unavailable(JinaASGIError):
    """Not now: try again after `retry_after` seconds."""

    status = 503
    grpc_code = "UNAVAILABLE"
    retriable = True

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def facts(self) -> Mapping[str, Any]:
        return {"retry_after": self.retry_after}


class Overloaded(Unavailable):
    """The queue is full; decided before the body was read.

    `server_wide` False: only this caller or this call is refused, others may still be accepted.
    """

    def __init__(self, message: str, *, retry_after: float = 1.0, server_wide: bool = True) -> None:
        super().__init__(message, retry_after=retry_after)
        self.server_wide = server_wide

    def facts(self) -> Mapping[str, Any]:
        facts = super().facts()
        return facts if self.server_wide else {**facts, "server_wide": False}


class NotReady(Unavailable):
    """Not started, still loading, draining, stopped, or failed to load: the message says which."""

    #: The state of a Runner before its first lifespan.
    NOT_STARTED: ClassVar = "not started"

    @classmethod
    def in_state(cls, name: str, state: str) -> Self:
        """Return the error of a Runner that takes no calls in this state."""
        if state == cls.NOT_STARTED:
            return cls(f"{name} was never started; enter its lifespan first (`async with`), or serve it")
        return cls(f"{name} is {state}; calls run only within its lifespan")


class ReplicaDied(Unavailable):
    """The process that ran the call is gone; whether the call took effect is not known."""


def interrupted_error(why: str, *, begun: bool) -> Unavailable:
    """Return the error of a call that ended without an answer because serving, or a process, ended; `why` says which.

    A call that may have begun gets ReplicaDied, any other NotReady, which may be retried safely.
    """
    if begun:
        return ReplicaDied(f"{why} while this call ran; whether it took effect is not known")
    return NotReady(f"{why} before this call began; try again later")


class DeadlineExceeded(JinaASGIError):
    """The deadline that the caller set has passed."""

    status = 504
    grpc_code = "DEADLINE_EXCEEDED"


class ProtocolError(JinaASGIError):
    """The other side of a connection sent what its protocol does not allow."""

    public = "the connection to the executor broke; the log has the cause under this error's id"


class RuntimeFailToStart(Exception):
    """Jina's name for a failure to start a Deployment or a Flow; `start` raises it in a program written for Jina."""


class DefinitionError(JinaASGIError, RuntimeFailToStart, TypeError):
    """An Executor class, its endpoints, or an option is written wrong; raised where it is written."""
