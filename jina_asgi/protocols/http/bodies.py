"""Reads the request bodies of one endpoint: Jina's JSON, the same as msgpack with raw tensors, and Jina's protobuf.

    {"data": doc or [docs], "parameters": {...}, "header": {"request_id": ...}}

In msgpack `data` may also be {"columns": {field: tensor or list}}, and the answer is then in columns too, as it is
for a client that accepts `application/msgpack; columns=true`. In protobuf both are a DataRequestProto.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import orjson
from pydantic import BaseModel, Field, ValidationError, create_model

from jina_asgi.documents import field_plans
from jina_asgi.documents.codec import Codec, codec
from jina_asgi.documents.columns import column_length
from jina_asgi.documents.msgpack import unpack
from jina_asgi.documents.readers import errors_of
from jina_asgi.errors import InvalidDocs, InvalidRequest, TooLarge, UnsupportedMedia
from jina_asgi.protocols.http.json_pieces import loads
from jina_asgi.protocols.size_guard import (
    JSON,
    MSGPACK,
    PROTOBUF,
    check_json,
    check_msgpack,
    check_parameters,
    is_heavy,
    needs_patience,
)
from jina_asgi.settings import Limits
from jina_asgi.types import Docs, Endpoint


class RequestHeader(BaseModel):
    """The `header` of a request, as Jina's clients send it."""

    request_id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    target_executor: str | None = None


class Request(msgspec.Struct, frozen=True):
    """A parsed body: typed docs, parameters, the request id if it has one, and the form of the answer.

    `place` is the place of the docs in the body, for later errors; `listed`: they are a list there.
    """

    docs: Docs
    parameters: dict[str, Any]
    request_id: str | None
    columns: bool = False
    target_executor: str = ""
    place: tuple[str, ...] = ("body", "data")
    listed: bool = True

    def placed(self, error: InvalidDocs) -> InvalidDocs:
        """Places an error that another process found in the docs, as this process would place it."""
        if not any(_of_a_doc(entry) for entry in error.errors):
            return error
        skip = 0 if self.listed else 1
        entries = [{**e, "loc": [*self.place, *e["loc"][skip:]]} if _of_a_doc(e) else e for e in error.errors]
        return InvalidDocs(error.message, entries)


class Bodies:
    """The request bodies of one endpoint."""

    def __init__(self, endpoint: Endpoint, limits: Limits) -> None:
        self.endpoint = endpoint
        self.input: Codec = codec(endpoint.input)
        self._name, self._limits = endpoint.input.name, limits
        self._places = ("body", "data", self._name), ("body", "data", f"list[{self._name}]")
        self._has_columns = all(field.name != "columns" for field in endpoint.input.fields)
        self._lists = {field.name for field in endpoint.input.fields if field.kind in ("list", "set", "tuple")}
        #: Whether numbers become Python objects, and do not stay in arrays.
        self._numbers = bool(field_plans.documents_with(endpoint.input, lambda field: field.kind in _OF_OBJECTS))
        self._single: type[BaseModel] | None = None
        if self.input.is_plain:
            model: Any = self.input.model
            self._list = self._model(Annotated[list[model], Field(max_length=limits.docs)])
            self._validate = self._list.__pydantic_validator__.validate_json

    def _model(self, data: Any) -> type[BaseModel]:
        parameters: Any = dict[str, Any] | None
        header: Any = RequestHeader | None
        return create_model("Body", data=(data, ...), parameters=(parameters, None), header=(header, None))

    def is_heavy(self, media: str, raw: bytes) -> bool:
        """Whether a body may be so large that it should be read in a thread."""
        return is_heavy(media, raw, numbers=self._numbers)

    def read(self, media: str, raw: bytes, *, heavy: bool = False) -> Request:
        """Reads the body of a request; `heavy`: this runs in a thread, and lets other threads run.

        Raises:
            InvalidRequest: it is not of its content type. InvalidDocs: it does not fit the schema. TooLarge: too many docs or
            values, or nested too deep. UnsupportedMedia: another content type, or protobuf without its extra.
        """
        patiently = heavy and needs_patience(media, raw, numbers=self._numbers)
        if media == JSON:
            if len(raw) > 2 * self._limits.values:  # a number and its comma take two bytes, other values more
                check_json(raw, self._limits.values)
            if patiently:
                return self.read_values(self._loads_in_pieces(raw), patiently=True)
            if self.input.is_plain and not (_is_odd(raw) or (self.input.nests and _is_deep(raw, self._limits.depth))):
                return self._read_plain(raw)
            return self.read_values(loads_any(raw))
        if media == MSGPACK:
            check_msgpack(raw, self._limits.values)
            return self.read_values(unpack(raw), columns=self._has_columns, patiently=patiently)
        if media == PROTOBUF:
            return self._read_protobuf(raw)
        raise unsupported(media)

    def read_bare(self, raw: bytes, *, heavy: bool = False) -> Request:
        """Reads one bare document in JSON, as our Client sends it to a stream by GET; raises as `read`."""
        check_json(raw, self._limits.values)
        if not heavy:
            return self.read_doc(loads_object(raw))
        value = self._loads_in_pieces(raw)
        if not isinstance(value, dict):
            raise InvalidRequest("expected a JSON object")
        return self.read_doc(value, patiently=True)

    def _loads_in_pieces(self, raw: bytes) -> Any:
        return loads(raw, self._limits.depth + 64)

    def read_doc(self, value: dict[str, Any], *, patiently: bool = False) -> Request:
        """Reads one bare document, of a stream by GET; in a query a list of one item is a single value."""
        value = {k: [v] if k in self._lists and isinstance(v, str) else v for k, v in value.items()}
        try:
            docs = self.input.docs(self.input.read([value], self._limits.depth, yielding=patiently))
            return Request(docs, {}, None, place=("query",), listed=False)
        except InvalidDocs as error:
            entries = [{**e, "loc": ["query", *e["loc"][1:]]} for e in error.errors]
            raise InvalidDocs(error.message, entries) from error

    def _read_plain(self, raw: bytes) -> Request:
        """Reads JSON directly with pydantic: as a list first, then as one object."""
        try:
            body = self._validate(raw).__dict__
            docs = body["data"]
        except ValidationError as error:
            body = self._read_single(raw, error)
            docs = [body["data"]]
        header, parameters = body["header"], body["parameters"] or {}
        if parameters and len(raw) > self._limits.parameters:  # a value takes a byte or more
            check_parameters(parameters, self._limits.parameters)
        wrapped = Docs(self.input, self.input.wrap(docs))
        if header is None:
            return Request(wrapped, parameters, None)
        return Request(wrapped, parameters, header.request_id, target_executor=header.target_executor or "")

    def _read_single(self, raw: bytes, error: ValidationError) -> dict[str, Any]:
        """Reads a body whose `data` is not a list; reports the errors if it is not a document either."""
        entries = errors_of(error)
        if entries[0]["type"] == "json_invalid":
            raise InvalidRequest(f"the body is not JSON: {entries[0]['msg']}")
        of_data = next((entry for entry in entries if entry["loc"] == ["data"]), None)
        if of_data is not None and of_data["type"] == "too_long":
            raise self._too_many()
        if of_data is None or of_data["type"] != "list_type":
            raise _invalid(_in_branch(entries, f"list[{self._name}]"))
        if self._single is None:
            self._single = self._model(self.input.model)
        try:
            body: dict[str, Any] = self._single.__pydantic_validator__.validate_json(raw).__dict__
            return body
        except ValidationError as single:
            raise _invalid(_in_branch(errors_of(single), self._name)) from None

    def read_values(
        self, body: Any, *, columns: bool = False, patiently: bool = False, place: tuple[str, ...] = ()
    ) -> Request:
        """Reads a body of plain values; `place` is the place of its documents, if it differs from JSON's. Raises as `read`."""
        if not isinstance(body, dict) or "data" not in body:
            raise _invalid([{"type": "missing", "loc": ["data"], "msg": "Field required", "input": None}])
        data, parameters, header = body["data"], body.get("parameters"), body.get("header")
        if not isinstance(parameters, dict | None):
            raise _invalid([{"type": "dict_type", "loc": ["parameters"], "msg": "Input should be a valid dictionary"}])
        check_parameters(parameters or {}, self._limits.parameters)
        head = None if header is None else self._header(header)
        columns = columns and isinstance(data, dict) and set(data) == {"columns"} and isinstance(data["columns"], dict)
        listed = columns or isinstance(data, list)
        if (column_length(data["columns"]) if columns else len(data) if listed else 1) > self._limits.docs:
            raise self._too_many()
        place = place or self._places[listed]
        try:
            if columns:
                docs = self.input.from_columns(data["columns"], self._limits.depth, yielding=patiently)
            else:
                items = data if listed else [data]
                docs = self.input.read(items, self._limits.depth, owned=True, yielding=patiently)
        except InvalidDocs as error:
            entries = [{**e, "loc": e["loc"] if listed else e["loc"][1:]} for e in error.errors]
            if any(entry["type"] == "too_deep" for entry in entries):
                raise TooLarge(f"the body nests deeper than {self._limits.depth}") from error
            raise _invalid([{**e, "loc": [*place[1:], *e["loc"]]} for e in entries], error.message) from error
        wrapped = self.input.docs(docs)
        if head is None:
            return Request(wrapped, parameters or {}, None, columns, "", place, listed)
        target = head.target_executor or ""
        return Request(wrapped, parameters or {}, head.request_id, columns, target, place, listed)

    def _read_protobuf(self, raw: bytes) -> Request:
        requests = protobuf()
        asked = requests.fields_of(requests.read(raw, limits=self._limits))
        if asked.request_id:
            self._header({"request_id": asked.request_id})
        docs = requests.docs(asked, self.input, self._limits)
        return Request(docs, asked.parameters, asked.request_id or None, target_executor=asked.target_executor)

    def _too_many(self) -> TooLarge:
        return TooLarge(f"expected at most {self._limits.docs} docs; the option `limits` of JinaASGI raises this")

    @staticmethod
    def _header(value: Any) -> RequestHeader:
        try:
            return RequestHeader.model_validate(value)
        except ValidationError as error:
            raise _invalid([{**e, "loc": ["header", *e["loc"]]} for e in errors_of(error)]) from None


class BodiesByEndpoint:
    """The reader of each endpoint's bodies, kept while the endpoint stays the same."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._kept: dict[str, Bodies] = {}

    def of(self, endpoint: Endpoint) -> Bodies:
        """The reader of the bodies of one endpoint."""
        bodies = self._kept.get(endpoint.name)
        if bodies is None or bodies.endpoint is not endpoint:
            bodies = self._kept[endpoint.name] = Bodies(endpoint, self._limits)
        return bodies


def protobuf() -> Any:
    """The module of Jina's requests as protobuf, which needs the extra `grpc`.

    Raises:
        UnsupportedMedia: the extra is not installed.
    """
    try:
        from jina_asgi.protocols.protobuf import requests
    except ModuleNotFoundError as error:
        raise UnsupportedMedia("protobuf bodies need the extra: pip install 'jina-asgi[grpc]'") from error
    return requests


def loads_object(raw: bytes) -> dict[str, Any]:
    """Parses a JSON object.

    Raises:
        InvalidRequest: the bytes are not a JSON object.
    """
    value = loads_any(raw)
    if not isinstance(value, dict):
        raise InvalidRequest("expected a JSON object")
    return value


def loads_any(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None


#: The kinds of fields whose numbers become Python objects.
_OF_OBJECTS = ("list", "set", "tuple", "dict", "json", "union")
_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _is_odd(raw: bytes) -> bool:
    """Whether a body may have numbers that pydantic's parser accepts and orjson refuses: NaN, 1e400, over 64 bits.

    Such a body is parsed by orjson, so that the answer does not depend on the schema.
    """
    zeros = raw.translate(_DIGITS, b"+")  # counted, as `in` makes an error of bytes first, which takes longer
    return raw.count(b"NaN") + raw.count(b"Infinity") + zeros.count(b"0" * 19) + zeros.count(b"0e000") > 0


def _is_deep(raw: bytes, depth: int) -> bool:
    """Whether brackets, also those in texts, nest deeper than `depth`."""
    if raw.count(b"{") + raw.count(b"[") <= depth:
        return False
    level = 0
    for bracket in raw.translate(None, _NO_BRACKETS):
        level += 1 if bracket in b"[{" else -1
        if level > depth:
            return True
    return False


def _of_a_doc(entry: Mapping[str, Any]) -> bool:
    """Whether an error's place begins with a document's index."""
    place: Sequence[Any] = entry.get("loc") or ()
    return bool(place) and isinstance(place[0], int)


def _in_branch(entries: list[dict[str, Any]], branch: str) -> list[dict[str, Any]]:
    """pydantic's errors of `data` as a list, or as one document, in FastAPI's form."""
    return [{**e, "loc": ["data", branch, *e["loc"][1:]] if e["loc"][:1] == ["data"] else e["loc"]} for e in entries]


def unsupported(media: str) -> UnsupportedMedia:
    """The error that lists the supported content types."""
    expected = f"{JSON}, {MSGPACK}, {PROTOBUF} or multipart/form-data"
    return UnsupportedMedia(f"expected content-type {expected}, got {media[:64] or 'none'!r}")


def _invalid(entries: list[dict[str, Any]], message: str = "the body does not match the schema") -> InvalidDocs:
    return InvalidDocs(message, [{**entry, "loc": ["body", *entry["loc"]]} for entry in entries])


__all__ = [
    "JSON",
    "MSGPACK",
    "PROTOBUF",
    "Bodies",
    "BodiesByEndpoint",
    "Request",
    "loads_object",
    "protobuf",
    "unsupported",
]
