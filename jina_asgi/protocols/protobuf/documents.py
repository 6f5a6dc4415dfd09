"""Encodes docs as docarray's DocListProto, and decodes them, by the schema's field plan.

Values are as in docarray's `from_protobuf`, with these differences: an empty tensor keeps its dtype, a big-endian one gets
this machine's byte order, and untyped values are plain str, bytes and arrays. Integers over 32 bits are refused when
writing; dtypes that are not numbers are refused both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jina_asgi.documents.codec import Codec
from jina_asgi.errors import ExecutorError, InvalidDocs, JinaASGIError, TooLarge
from jina_asgi.protocols.protobuf.fast_parser import Scanner
from jina_asgi.protocols.protobuf.node_writer import NodeWriter, varint
from jina_asgi.protocols.size_guard import PROTOBUF, is_heavy
from jina_asgi.settings import Limits
from jina_asgi.types import Docs, Schema

#: A document without a class, which keeps all fields.
_ANY = Schema("Any", {"Any": ()}, {"additionalProperties": True})
_UNWRITABLE = (TypeError, ValueError, OverflowError, AttributeError, RecursionError)


def wire(codec: Codec) -> DocsWire:
    """The reader and writer of a codec's docs as protobuf, built once."""
    if codec.cached_wire is None:
        codec.cached_wire = DocsWire(codec)
    found: DocsWire = codec.cached_wire
    return found


def answer_buffers(docs: Docs) -> list[Any]:
    """The buffers of an answer's `data`, to be joined: so docs that may be large are copied once.

    Raises:
        ExecutorError: a value in the docs cannot be written.
    """
    try:
        buffers, size = (docs.codec.cached_wire or wire(docs.codec)).buffers(docs.typed)
    except JinaASGIError as error:
        raise not_writable(error) from error
    before = b"\x0a" + varint(size)
    return [b"\x22", varint(len(before) + size), before, *buffers]


def not_writable(error: JinaASGIError) -> ExecutorError:
    """The error of an Executor whose answer cannot be written."""
    return ExecutorError(f"an answer has no place in Jina's protobuf: {error}")


def any_rows(raw: bytes, limits: Limits) -> list[dict[str, Any]]:
    """The documents of a DocListProto as dicts of all their fields; raises as `DocsWire.read` does."""
    return Scanner(_ANY).rows(raw, limits)


class DocsWire:
    """Reads and writes typed docs as protobuf."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._name = codec.schema.name
        self._scanner, self._writer = Scanner(codec.schema), NodeWriter(codec.schema)
        self._asking = NodeWriter(codec.schema, reveals=True)
        self._has_tensors = self._name in self._writer.with_tensors

    def read(self, raw: bytes, limits: Limits) -> list[Any]:
        """Reads the docs of a DocListProto.

        Raises:
            InvalidRequest: it is malformed. InvalidDocs: a doc does not fit the schema; `loc` begins with its index.
            TooLarge: too many docs, or nested too deep.
        """
        try:
            rows = self._scanner.rows(raw, limits)
            return self._codec.read(rows, limits.depth, owned=True, yielding=is_heavy(PROTOBUF, raw))
        except InvalidDocs as error:
            if any(entry["type"] == "too_deep" for entry in error.errors):
                raise TooLarge(f"the docs nest deeper than {limits.depth}") from error
            raise

    def write(self, docs: Sequence[Any]) -> bytes:
        """Writes docs of this schema as a DocListProto, for a request: secrets are not hidden.

        Raises:
            InvalidDocs: a value cannot be written, such as an integer over 32 bits.
        """
        try:
            return b"".join(self._asking.documents(docs, self._name)[0])
        except _UNWRITABLE as error:
            raise self._unwritable(docs, error) from error

    def buffers(self, docs: Sequence[Any]) -> tuple[list[Any], int]:
        """As `write`, for an answer, in which secrets are hidden: the buffers to join, and their length together."""
        try:
            hide = self._codec.hide
            if hide is not None:
                docs = [hide(doc) for doc in docs]
            if len(docs) == 1 and not self._has_tensors:
                (doc,) = docs
                return self._writer.single(doc, self._name)
            return self._writer.documents(docs, self._name)
        except _UNWRITABLE as error:
            raise self._unwritable(docs, error) from error

    def write_doc(self, doc: Any, *, reveals: bool = False) -> bytes:
        """Writes a DocProto; `reveals`: for a request, without hiding secrets. Raises as `write` does."""
        try:
            if reveals:
                return self._asking.document(doc, self._name)
            hide = self._codec.hide
            return self._writer.document(doc if hide is None else hide(doc), self._name)
        except _UNWRITABLE as error:
            raise self._unwritable([doc], error) from error

    def _unwritable(self, docs: Sequence[Any], error: Exception) -> InvalidDocs:
        return InvalidDocs(
            f"a {self._name} cannot be written as protobuf: {self._codec.explain(docs, error, own=False)}"
        )
