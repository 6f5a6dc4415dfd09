"""Docs as docarray's protobuf: a DocListProto's bytes to typed docs and back, on the schema's field plan.

Values are those that docarray's `from_protobuf` makes, with these differences: a tensor without elements keeps its
dtype, a big-endian one comes in this machine's order, and values without a type are plain str, bytes and arrays. An
integer over 32 bits is refused in writing; so is, both ways, a dtype that is no number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jina_asgi.documents.codec import Codec
from jina_asgi.errors import InvalidDocs, TooLarge
from jina_asgi.protocols.protobuf.fast_parser import Scanner
from jina_asgi.protocols.protobuf.node_writer import NodeWriter
from jina_asgi.protocols.size_guard import PROTOBUF, is_heavy
from jina_asgi.settings import Limits
from jina_asgi.types import Schema

#: A document of no class, which keeps whatever fields there are.
_ANY = Schema("Any", {"Any": ()}, {"additionalProperties": True})
_UNWRITABLE = (TypeError, ValueError, OverflowError, AttributeError, RecursionError)


def wire(codec: Codec) -> DocsWire:
    """What reads and writes the docs of a codec as protobuf, built once."""
    if codec.cached_wire is None:
        codec.cached_wire = DocsWire(codec)
    found: DocsWire = codec.cached_wire
    return found


def any_rows(raw: bytes, limits: Limits) -> list[dict[str, Any]]:
    """The documents of a DocListProto as dicts of all that they hold; raises as `DocsWire.read` does."""
    return Scanner(_ANY).rows(raw, limits)


class DocsWire:
    """Typed docs to protobuf and back."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._name = codec.schema.name
        self._scanner, self._writer = Scanner(codec.schema), NodeWriter(codec.schema)
        self._asking = NodeWriter(codec.schema, reveals=True)

    def read(self, raw: bytes, limits: Limits) -> list[Any]:
        """The docs of a DocListProto.

        Raises:
            InvalidRequest: the bytes are none. InvalidDocs: not of the schema; `loc` begins with the doc's index.
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
        """A DocListProto of docs of this schema, for a request: secrets are in it as they are.

        Raises:
            InvalidDocs: a value has no place in one, such as an integer over 32 bits.
        """
        try:
            return b"".join(self._asking.documents(docs, self._name)[0])
        except _UNWRITABLE as error:
            raise self._unwritable(docs, error) from error

    def buffers(self, docs: Sequence[Any]) -> tuple[list[Any], int]:
        """As `write`, for an answer, in which secrets are hidden: the buffers to join, and their length together."""
        try:
            hide = self._codec.hide
            return self._writer.documents(docs if hide is None else [hide(doc) for doc in docs], self._name)
        except _UNWRITABLE as error:
            raise self._unwritable(docs, error) from error

    def write_doc(self, doc: Any, *, reveals: bool = False) -> bytes:
        """A DocProto, of a request where it `reveals` secrets; raises as `write` does."""
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
