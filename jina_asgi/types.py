"""The types that all layers share, and the interface Runner.

Types of which each request makes objects are msgspec.Structs: frozen like dataclasses, and created six times as fast.

An Executor in this process is a Runner; so are a wrapper of a Runner, a remote server, and a graph of Runners. This module
imports no docarray, no codec and no protocol.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, Protocol

import msgspec

EndpointKind = Literal["batch", "single", "stream"]
FieldKind = Literal[
    "str", "int", "float", "bool", "bytes", "tensor", "doc", "docs", "list", "tuple", "set", "dict", "union", "json"
]


class _Empty(dict[str, Any]):
    """An immutable empty mapping: a dict, for encoders, and hashable, as a default."""

    def __hash__(self) -> int:  # type: ignore[override]  # dict is unhashable; this one is immutable
        return 0

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("this mapping is shared and stays empty; make a dict of your own")

    __setitem__ = setdefault = update = __ior__ = _refuse


EMPTY: Mapping[str, Any] = _Empty()


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a document, as data.

    `kind` "json" is any other type that pydantic serialises to JSON (a datetime, an enum, an untyped value).
    `shape` has one entry for each axis, None for any length; `shape` None allows any shape, `dtype` None any
    dtype. `items` are the element (list, set, dict), the elements (tuple) or the members (union).
    `doc` names a document of the same `Schema`. `tag` is docarray's name of the type in protobuf. A `secret` is hidden in
    answers; a `file` gets the path of an uploaded file.
    """

    name: str
    kind: FieldKind
    nullable: bool = False
    required: bool = True
    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None
    items: tuple[Field, ...] = ()
    doc: str | None = None
    tag: str | None = None
    secret: bool = False
    file: bool = False


@dataclass(frozen=True, slots=True)
class Schema:
    """A document class as data: its fields, those of all nested documents by name, and its JSON Schema.

    `models` has the classes by the same names, if they are available; equality ignores them, so that a schema equals
    its copy in another process.
    """

    name: str
    documents: Mapping[str, tuple[Field, ...]]
    json_schema: Mapping[str, Any]
    models: Mapping[str, type[Any]] = field(default=EMPTY, compare=False, repr=False)
    #: The codec built from this schema, set by `documents.codec.codec` on first use: every call looks for one, a schema
    #: cannot be hashed, and a cache elsewhere would outlive the schemas of each connection.
    cached_codec: Any = field(default=None, init=False, compare=False, repr=False)

    @property
    def fields(self) -> tuple[Field, ...]:
        return self.documents[self.name]

    @property
    def model(self) -> type[Any] | None:
        """The document class itself, if it is available."""
        return self.models.get(self.name)


@dataclass(frozen=True, slots=True)
class ParametersSchema:
    """A typed `parameters` argument: its JSON Schema, whether it is required, and its class if available."""

    name: str
    json_schema: Mapping[str, Any]
    required: bool = False
    model: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One endpoint's input, output and options, as data that can be sent to other processes.

    `concurrent`: its calls run concurrently on an event loop; others run one at a time in each Executor thread.
    `batching` has the batching settings for the process that supervises its replicas.
    """

    name: str
    kind: EndpointKind
    input: Schema
    output: Schema
    parameters: ParametersSchema | None = None
    idempotent: bool = False
    concurrent: bool = False
    batching: Mapping[str, Any] | None = field(default=None, compare=False)
    description: str = ""


class Parts:
    """One encoded document as several buffers in order, so that large tensors are not copied.

    `aligned` is the number of bytes before the first large buffer.
    """

    __slots__ = ("_size", "aligned", "buffers")

    def __init__(self, buffers: Sequence[bytes | memoryview], aligned: int) -> None:
        self.buffers, self.aligned = buffers, aligned
        self._size = sum(map(len, buffers))

    def __len__(self) -> int:
        return self._size

    def joined(self) -> bytes:
        """Return the document in one buffer."""
        return b"".join(self.buffers)


class Docs(msgspec.Struct, eq=False):
    """A list of documents, typed or encoded as one buffer a doc; each form is made from the other once.

    `codec` is the `documents.codec.Codec` of their schema, which lies in a layer above. `objects` and `buffers` are the
    forms that are there; one of them may be None.
    """

    codec: Any
    objects: list[Any] | None = None
    buffers: Sequence[bytes | memoryview] | None = None

    @property
    def typed(self) -> list[Any]:
        """The docs as objects: a `DocList[T]` or a list of models if the class is available, else a list of dicts.

        Raises `InvalidDocs` if a buffer does not fit the schema.
        """
        if self.objects is None:
            assert self.buffers is not None
            self.objects = self.codec.decode(self.buffers)
        return self.objects

    @property
    def encoded(self) -> Sequence[bytes | memoryview]:
        """The docs as one msgpack buffer each."""
        if self.buffers is None:
            assert self.objects is not None
            self.buffers = self.codec.encode(self.objects)
        return self.buffers

    @property
    def parts(self) -> Sequence[bytes | memoryview | Parts]:
        """As `encoded`, for an immediate write: large tensors still share the documents' memory."""
        if self.buffers is None:
            parts: Sequence[bytes | memoryview | Parts] = self.codec.encode_parts(self.typed)
            return parts
        return self.buffers

    @property
    def is_typed(self) -> bool:
        return self.objects is not None

    @property
    def is_encoded(self) -> bool:
        return self.buffers is not None

    def __len__(self) -> int:
        docs = self.buffers if self.objects is None else self.objects
        return len(docs) if docs is not None else 0

    def __repr__(self) -> str:
        return f"<Docs of {len(self)}, {'typed' if self.is_typed else 'encoded'}>"


#: Makes the ids; not the module's own, which an Executor may seed, and not the kernel, which takes a twentieth of a call.
_ids = random.Random()  # noqa: S311  # no secrets
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_ids.seed)


def random_id() -> str:
    """Return a new id for a request."""
    return f"{_ids.getrandbits(128):032x}"


class _Identified(msgspec.Struct, eq=False):
    request_id: str = msgspec.field(default_factory=random_id)


class Context(_Identified, kw_only=True, eq=False):
    """The context of a call: its caller, its deadline, and whether the caller has left.

    Attributes:
        request_id: the caller's; a random one if none is given.
        headers: the caller's, names in lower case.
        deadline: a moment on `time.monotonic`'s clock in seconds, or None.
        identity: the result of `auth`.
        trace: a tracing library's own context.
        carrier: that context as W3C's headers, for the next process of this server.
        cancelled: True once the caller has left: a long sync endpoint checks it and returns early.
        costs: the cost of each document, for a batcher in a process that sees only buffers.
        inputs: a digest of each document's content, if equal documents are run once.
        record: what the access log measures of the call, if there is one.
        request_ids: of a batch that has begun, the ids of all its requests.
    """

    headers: Mapping[str, str] = EMPTY
    deadline: float | None = None
    identity: Any = None
    tenant: str = ""
    priority: int = 0
    trace: Any = None
    carrier: Mapping[str, str] = EMPTY
    cancelled: bool = False
    costs: Sequence[float] | None = None
    inputs: Sequence[bytes] | None = None
    record: Any = None
    request_ids: Sequence[str] = ()

    def __repr__(self) -> str:
        return f"<Context {self.request_id}>"


class Call(msgspec.Struct, frozen=True):
    """One request to one endpoint.

    `sources` are (node, docs) pairs if several nodes feed a join; `giver` is the single node that gave the docs:
    "gateway" is the request itself, "" a batch of several calls. `target_executor` is a pattern for the names of the
    Flow's nodes that run: the others pass their documents on. `on_begin` returns the docs in place of `docs`: those of a
    batch are settled only as it begins.
    """

    endpoint: str
    docs: Docs
    parameters: Mapping[str, Any] = EMPTY
    context: Context = msgspec.field(default_factory=Context)
    sources: tuple[tuple[str, Docs], ...] = ()
    target_executor: str = ""
    giver: str = "gateway"
    on_begin: Callable[[], Docs] | None = None

    def begin(self) -> Docs:
        """Return the docs: called by what runs the call or sends it on, in any thread, as its work begins."""
        return self.docs if self.on_begin is None else self.on_begin()


class Step(msgspec.Struct, frozen=True):
    """One entry of a trail: which node ran, when (seconds since the epoch), and the error's type if it failed."""

    name: str
    start: float
    end: float
    error: str | None = None


class Result(msgspec.Struct, frozen=True):
    """The answer: docs in the order of the request, the dicts that nodes returned (Jina's `__results__`), and the trail."""

    docs: Docs
    results: Mapping[str, Any] = EMPTY
    trail: tuple[Step, ...] = ()


class Ticket:
    """A place in a queue, taken before the body is read. This one is of a call that is admitted elsewhere: it holds none."""

    __slots__ = ()

    def close(self) -> None:
        """Free the place, when the call is over; repeated calls do nothing."""


class Runner(Protocol):
    """Answers calls. Its contract is `jina_asgi.testing.runner_conformance`."""

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The endpoints by name; known before the lifespan starts."""
        ...

    def admit(self, endpoint: str, *, size: int = 0) -> Ticket:
        """Take a place in the queue for a call of `size` bytes (0: not known), without I/O.

        Raises:
            Overloaded: the queue is full; `retry_after` is the time until a retry.
            NotReady: the runner is not running.
        """
        ...

    async def call(self, call: Call, /) -> Result:
        """Answer one call of a batch or single endpoint.

        Raises:
            UnknownEndpoint, InvalidDocs, ExecutorInputError, ExecutorError, DeadlineExceeded, Unavailable.
        """
        ...

    def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        """Answer one call of a stream endpoint, doc by doc. Closing it early closes the user's generator.

        Raises as `call` does, at the first step or a later one.
        """
        ...

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Load on entering, finish running calls on leaving. May be entered again afterwards."""
        ...


#: The schema of an endpoint that declares none.
ANY_DOCUMENT = Schema("Document", {"Document": ()}, {"type": "object", "additionalProperties": True})


def untyped_endpoint(name: str) -> Endpoint:
    """Return an endpoint of which only the name is known."""
    return Endpoint(name=name, kind="batch", input=ANY_DOCUMENT, output=ANY_DOCUMENT)


def resolve(endpoints: Mapping[str, Endpoint], name: str) -> Endpoint | None:
    """Return the endpoint that answers `name`: itself, else '/default', else None."""
    return endpoints.get(name) or endpoints.get("/default")
