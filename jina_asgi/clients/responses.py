"""A Client's responses, with the fields of Jina's, and the conversion to `return_type`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from jina_asgi.documents.codec import Codec, codec, codec_of
from jina_asgi.errors import DeadlineExceeded, InvalidDocs, JinaASGIError, Unavailable, UnknownEndpoint
from jina_asgi.excepts import BadClient, BadClientInput, BadServer
from jina_asgi.protocols.http.bodies import JSON
from jina_asgi.protocols.remote.transport import ServerAnswer
from jina_asgi.types import Schema

#: Jina's status codes.
SUCCESS, ERROR = 0, 1
#: The class of requests without documents.
NOTHING = Schema("Document", {"Document": ()}, {})


@dataclass(frozen=True, slots=True)
class ExceptionInfo:
    """An error's class, its arguments, and the Executor that raised it, if the server reports it."""

    name: str = ""
    args: list[str] = field(default_factory=list)
    stacks: list[str] = field(default_factory=list)
    executor: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a request: `code` 0 is success, 1 an error."""

    code: int = SUCCESS
    description: str = ""
    exception: ExceptionInfo = ExceptionInfo()


@dataclass(frozen=True, slots=True)
class Route:
    """One step of a request's route; the times are texts, empty if unknown."""

    executor: str
    start_time: str = ""
    end_time: str = ""
    status: Status = Status()

    @classmethod
    def of(cls, said: Any) -> Route:
        """Builds a route from a server's JSON; missing or malformed fields are empty."""
        fields: Mapping[str, Any] = said if isinstance(said, Mapping) else {}
        written = fields.get("status")
        status: Mapping[str, Any] = written if isinstance(written, Mapping) else {}
        code = ERROR if status.get("code") in (ERROR, "ERROR") else SUCCESS
        return cls(
            str(fields.get("executor") or ""),
            str(fields.get("startTime") or ""),
            str(fields.get("endTime") or ""),
            Status(code, str(status.get("description") or "")),
        )

    def described(self) -> dict[str, Any]:
        """The route as JSON values."""
        code = "ERROR" if self.status.code else "SUCCESS"
        status = {"code": code, "description": self.status.description}
        return {"executor": self.executor, "startTime": self.start_time, "endTime": self.end_time, "status": status}


@dataclass(frozen=True, slots=True)
class Header:
    """The request's id and endpoint, and its status."""

    request_id: str
    status: Status
    exec_endpoint: str = ""
    target_executor: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to one request. If it failed, `docs` are the request's own, and `error` is the error."""

    docs: Any
    parameters: Mapping[str, Any]
    header: Header
    routes: list[Route]
    error: JinaASGIError | None = None
    codec: Codec | None = field(default=None, repr=False)

    @property
    def data(self) -> Any:
        """The docs, by Jina's other name for them."""
        return self.docs

    @property
    def status(self) -> Status:
        return self.header.status

    def to_dict(self) -> dict[str, Any]:
        """Converts the answer to JSON values; tensors become nested lists."""
        writer = self.codec or codec(NOTHING)
        if isinstance(self.docs, np.ndarray):
            values = self.docs.tolist()
        else:
            values = [vars(doc) for doc in self.docs] if self.codec is None else writer.to_json(self.docs)
        status, header = self.status, self.header
        info = status.exception
        exception = {"name": info.name, "args": info.args, "stacks": info.stacks, "executor": info.executor}
        return {
            "header": {
                "request_id": header.request_id,
                "status": {"code": status.code, "description": status.description, "exception": exception},
                "exec_endpoint": header.exec_endpoint,
                "target_executor": header.target_executor,
            },
            "parameters": dict(self.parameters),
            "routes": [route.described() for route in self.routes],
            "data": orjson.loads(writer.dumps(values)),
        }


def status_of(error: JinaASGIError) -> Status:
    """The status of a failed request."""
    name, executor = type(error).__name__, str(error.facts().get("executor", ""))
    return Status(ERROR, f"{name}: {error}", ExceptionInfo(name, [str(error)], [], executor))


def routes_of(error: JinaASGIError) -> list[Route]:
    """The route of a failed request: the gateway, and the Executor or node that failed, if the server reports it."""
    status = status_of(error)
    place = error.node or status.exception.executor
    return [Route(name, status=status) for name in ("gateway", place) if name]


def raised(response: Response) -> Exception:
    """The exception for a failed request that Jina's users expect; the server's error is its cause."""
    error = response.error
    assert error is not None
    surfaced: Exception
    if isinstance(error, UnknownEndpoint):
        surfaced = BadClient(f"no such endpoint {response.header.exec_endpoint}: {error}")
    elif isinstance(error, Unavailable | DeadlineExceeded):
        surfaced = ConnectionError(str(error))
    else:
        surfaced = BadServer(f"{type(error).__name__}: {error}", response.header)
    surfaced.__cause__ = error
    return surfaced


@dataclass(frozen=True, slots=True)
class ReturnType:
    """A `return_type`: documents of a class, in a list or single.

    If `codec` is None, documents may have any fields, as in Jina's bare DocList.
    """

    codec: Codec | None
    is_single: bool
    make: Callable[[list[Any]], list[Any]]

    @property
    def is_array(self) -> bool:
        """Whether arrays are returned in place of documents."""
        return False

    @classmethod
    def of(cls, wanted: Any) -> ReturnType:
        """Parses an annotation: `DocList[T]`, `list[T]`, `T`, `numpy.ndarray`, or None for any documents.

        Raises:
            BadClientInput: another annotation.
        """
        from jina_asgi.documents import document_types  # docarray is imported by the first call only

        if wanted is np.ndarray:
            return ArrayType(None, False, list)
        if wanted is None or wanted is document_types.DocList:
            return cls(None, False, document_types.Container.docs(document_types.AnyDoc).make)
        single, container = document_types.Container.wanted(wanted)
        if container is None:
            raise BadClientInput(
                f"return_type={wanted!r}: expected a document class, DocList[...] of one, or numpy.ndarray"
            )
        return cls(codec_of(container.model), single, container.make)

    def read(self, answer: ServerAnswer) -> Any:
        """Decodes the docs of an answer.

        Raises:
            BadClient: they do not fit the return type.
        """
        try:
            if self.codec is None:
                from jina_asgi.documents import document_types  # as above

                return document_types.any_docs(answer.values())
            return self.make(list(answer.docs(self.codec).typed))
        except InvalidDocs as error:
            place = ".".join(map(str, error.errors[0]["loc"])) if error.errors else ""
            why = f"{place}: {error.errors[0]['msg']}" if error.errors else str(error)
            wanted = "msgpack" if self.codec is None else self.codec.schema.name
            raise BadClient(f"the answer does not fit return_type ({wanted}): {why}") from error

    def parts(self, docs: Any) -> Sequence[Any]:
        """Splits the docs of one answer into the items that `listed` joins."""
        found: Sequence[Any] = docs
        return found

    def listed(self, docs: list[Any]) -> Any:
        """Joins the docs of several answers into one list of the requested type."""
        return self.make(docs)

    def given(self, docs: Any) -> Any:
        """The value that `post` returns: a single document if one was requested and there is exactly one."""
        return docs[0] if self.is_single and len(docs) == 1 else docs


@dataclass(frozen=True, slots=True)
class ArrayType(ReturnType):
    """`return_type=numpy.ndarray`: each document's only tensor, all in one array."""

    @property
    def is_array(self) -> bool:
        return True

    def read(self, answer: ServerAnswer) -> np.ndarray:
        """Builds the array of an answer.

        Raises:
            BadClient: the documents have no tensor, several, or tensors of several shapes.
        """
        try:
            of = list if answer.media == JSON else np.ndarray  # the type that tensors are decoded to
            columns = answer.columns if answer.columns is not None else _columns(answer.values())
            found = {name: array for name, column in columns.items() if (array := _array(column, of)) is not None}
        except (InvalidDocs, ValueError) as error:
            raise BadClient(f"the answer does not fit return_type (numpy.ndarray): {error}") from error
        if not columns:
            return _NOTHING
        if len(found) != 1:
            names = ", ".join(found) or "none"
            raise BadClient(f"return_type=numpy.ndarray: expected one field with tensors of one shape, got {names}")
        return next(iter(found.values()))

    def parts(self, docs: Any) -> Sequence[Any]:
        return [docs] if len(docs) else []

    def listed(self, docs: list[Any]) -> Any:
        return np.concatenate(docs) if docs else _NOTHING


_NOTHING = np.zeros((0, 0), np.float32)


def _columns(docs: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The values of each field that all documents have."""
    return {name: [doc[name] for doc in docs] for name in (docs[0] if docs else ()) if all(name in doc for doc in docs)}


def _array(column: Any, of: type) -> np.ndarray | None:
    """Joins the tensors of a column, each an instance of `of`, into one array; None if they are not tensors.

    Raises:
        ValueError: the tensors have several shapes.
    """
    if isinstance(column, np.ndarray):
        return column
    if not column or not all(isinstance(value, of) for value in column):
        return None
    if of is np.ndarray:
        return np.stack(column)
    try:  # a list from JSON: of numbers, or of anything else
        made = np.asarray(column)
    except ValueError:
        return None
    return made if made.size and made.dtype.kind in "biuf" else None
