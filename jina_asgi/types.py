"""The words everything speaks, and the one seam: Runner.

What every request makes anew is a msgspec.Struct: frozen like a dataclass, and made in a sixth of the time.

An Executor in this process is a Runner; so are a wrapper of one, the far end of a connection, and a whole
graph of them. Nothing here imports docarray, a codec or a protocol.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, Protocol

import msgspec

EndpointKind = Literal["batch", "single", "stream"]
FieldKind = Literal[
    "str", "int", "float", "bool", "bytes", "tensor", "doc", "docs", "list", "tuple", "set", "dict", "union", "json"
]


class _Empty(dict[str, Any]):
    """A mapping of nothing that stays so; a dict, as encoders know those, and hashable, as defaults must be."""

    def __hash__(self) -> int:  # type: ignore[override]  # dict has None here; nothing in this one can change
        return 0

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("this mapping is shared and stays empty; make a dict of your own")

    __setitem__ = setdefault = update = __ior__ = _refuse


EMPTY: Mapping[str, Any] = _Empty()


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a document, as data.

    `kind` "json" is whatever pydantic serialises to JSON by itself (a datetime, an enum, an untyped value).
    `shape` holds one entry an axis, None where any length goes; `shape` None allows any shape, `dtype` None
    any dtype. `items` are the element (list, set, dict), the elements (tuple) or the members (union).
    `doc` names a document of the same `Schema`. `tag` is the name that docarray's wire gives the type. A `secret` is in no
    answer; a `file` is given the path of a form's file.
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
    """A document class as data: its fields, those of every document nested in it by name, its JSON Schema.

    `models` has the classes where they are at hand, under the same names; equality leaves them out, so that
    a schema equals its copy on the other side of a wire.
    """

    name: str
    documents: Mapping[str, tuple[Field, ...]]
    json_schema: Mapping[str, Any]
    models: Mapping[str, type[Any]] = field(default=EMPTY, compare=False, repr=False)
    #: The codec built from this schema, set by `documents.codec.codec` on first use.
    cached_codec: Any = field(default=None, init=False, compare=False, repr=False)

    @property
    def fields(self) -> tuple[Field, ...]:
        return self.documents[self.name]

    @property
    def model(self) -> type[Any] | None:
        """The document class itself, where it is at hand."""
        return self.models.get(self.name)


@dataclass(frozen=True, slots=True)
class ParametersSchema:
    """A typed `parameters` argument: its JSON Schema, whether it may be left out, its class where at hand."""

    name: str
    json_schema: Mapping[str, Any]
    required: bool = False
    model: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What one endpoint takes and gives, as data that crosses a wire.

    `concurrent`: its calls run beside each other on an event loop; others take turns in the Executor's threads.
    `batching` is how it wants to be batched by whoever keeps its replicas.
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
    """One encoded document as several buffers, to be written one after the other: what is large is not copied here.

    `aligned` is how many bytes stand before the first of the large ones.
    """

    __slots__ = ("_size", "aligned", "buffers")

    def __init__(self, buffers: Sequence[bytes | memoryview], aligned: int) -> None:
        self.buffers, self.aligned = buffers, aligned
        self._size = sum(map(len, buffers))

    def __len__(self) -> int:
        return self._size

    def joined(self) -> bytes:
        """The document in one buffer."""
        return b"".join(self.buffers)


class DocsCodec(Protocol):
    """What `Docs` needs of a codec: typed docs to one buffer a doc, and back."""

    def encode(self, docs: Sequence[Any], /) -> list[bytes]: ...

    def encode_parts(self, docs: Sequence[Any], /) -> Sequence[bytes | Parts]: ...

    def decode(self, buffers: Sequence[bytes | memoryview], /) -> list[Any]: ...


class Docs:
    """A list of documents, typed or encoded as one buffer a doc; each form is made from the other once."""

    __slots__ = ("_encoded", "_typed", "codec")

    def __init__(
        self,
        codec: DocsCodec,
        typed: list[Any] | None = None,
        encoded: Sequence[bytes | memoryview] | None = None,
    ) -> None:
        #: The codec of these docs' schema.
        self.codec: Any = codec
        self._typed, self._encoded = typed, encoded

    @property
    def typed(self) -> list[Any]:
        """The docs as objects: a `DocList[T]` or a list of models where the class is at hand, else of dicts.

        Raises `InvalidDocs` when a buffer does not hold what the schema says.
        """
        if self._typed is None:
            assert self._encoded is not None
            self._typed = self.codec.decode(self._encoded)
        return self._typed

    @property
    def encoded(self) -> Sequence[bytes | memoryview]:
        """The docs as one msgpack buffer each."""
        if self._encoded is None:
            assert self._typed is not None
            self._encoded = self.codec.encode(self._typed)
        return self._encoded

    @property
    def parts(self) -> Sequence[bytes | memoryview | Parts]:
        """As `encoded`, for whoever writes it at once: large tensors are still those of the documents."""
        if self._encoded is None:
            parts: Sequence[bytes | memoryview | Parts] = self.codec.encode_parts(self.typed)
            return parts
        return self._encoded

    @property
    def is_typed(self) -> bool:
        return self._typed is not None

    @property
    def is_encoded(self) -> bool:
        return self._encoded is not None

    def __len__(self) -> int:
        docs = self._encoded if self._typed is None else self._typed
        return len(docs) if docs is not None else 0

    def __repr__(self) -> str:
        return f"<Docs of {len(self)}, {'typed' if self.is_typed else 'encoded'}>"


class Context:
    """What surrounds a call: who asks, until when, and whether they are still there.

    `headers` are the caller's, names in lower case; `deadline` is a moment on `time.monotonic`'s clock in
    seconds, or None; `identity` is what `auth` answered; `trace` is a tracing library's own context.
    """

    __slots__ = (
        "cancelled",
        "costs",
        "deadline",
        "headers",
        "identity",
        "inputs",
        "priority",
        "request_id",
        "tenant",
        "trace",
    )

    def __init__(
        self,
        request_id: str | None = None,
        *,
        headers: Mapping[str, str] = EMPTY,
        deadline: float | None = None,
        identity: Any = None,
        tenant: str = "",
        priority: int = 0,
        trace: Any = None,
    ) -> None:
        self.request_id = os.urandom(16).hex() if request_id is None else request_id
        self.headers, self.deadline, self.identity = headers, deadline, identity
        self.tenant, self.priority, self.trace = tenant, priority, trace
        #: True once nobody waits for the answer: a long sync endpoint looks at it and returns early.
        self.cancelled = False
        #: What each document costs, where whoever batches cannot look at them.
        self.costs: Sequence[float] | None = None
        #: What names each document's content, where equal ones are run once.
        self.inputs: Sequence[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Context {self.request_id}>"


class Call(msgspec.Struct, frozen=True):
    """One request to one endpoint.

    `sources` are (node, docs) pairs where several nodes feed a join; `giver` is the one node that gave the docs, where it
    is one: "gateway" is the request itself, "" where calls of several are in one batch. `target_executor` is a pattern
    for the names of the nodes of a Flow that answer: the others hand on what they are given.
    """

    endpoint: str
    docs: Docs
    parameters: Mapping[str, Any] = EMPTY
    context: Context = msgspec.field(default_factory=Context)
    sources: tuple[tuple[str, Docs], ...] = ()
    target_executor: str = ""
    giver: str = "gateway"


class Step(msgspec.Struct, frozen=True):
    """One entry of a trail: which node ran, when (seconds since the epoch), and the error's type if it failed."""

    name: str
    start: float
    end: float
    error: str | None = None


class Result(msgspec.Struct, frozen=True):
    """The answer: docs in the order asked, what nodes returned as dicts (Jina's `__results__`), and the trail."""

    docs: Docs
    results: Mapping[str, Any] = EMPTY
    trail: tuple[Step, ...] = ()


class Ticket(Protocol):
    """A place in the queue, given before the body is read; closed once when the call is over."""

    def close(self) -> None: ...


class Runner(Protocol):
    """Answers calls. The contract each of these keeps is `jina_asgi.testing.runner_conformance`."""

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The endpoints by name; known before the lifespan starts."""
        ...

    def admit(self, endpoint: str, *, size: int = 0, tenant: str = "", priority: int = 0) -> Ticket:
        """A place for a call of `size` bytes (0: not known). No I/O.

        Raises:
            Overloaded: the queue is full; `retry_after` says when to come back.
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
        """Answer one call of a stream endpoint, a doc at a time. Closing it early closes the user's generator.

        Raises as `call` does, at the first step or a later one.
        """
        ...

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Load on entering, finish what runs on leaving. May be entered again afterwards."""
        ...


#: What a server takes and gives that does not say it.
ANY_DOCUMENT = Schema("Document", {"Document": ()}, {"type": "object", "additionalProperties": True})


def unsaid(name: str) -> Endpoint:
    """An endpoint of which nothing is known but its name."""
    return Endpoint(name=name, kind="batch", input=ANY_DOCUMENT, output=ANY_DOCUMENT)


def resolve(endpoints: Mapping[str, Endpoint], name: str) -> Endpoint | None:
    """The endpoint that answers `name`: itself, else '/default', else None."""
    return endpoints.get(name) or endpoints.get("/default")
