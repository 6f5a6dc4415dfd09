"""Request and answer bodies of one endpoint: Jina's JSON, and the same as msgpack with raw tensors.

    {"data": doc or [docs], "parameters": {...}, "header": {"request_id": ...}}

In msgpack `data` may also be {"columns": {field: tensor or list}}, and the answer is then in columns too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson
from pydantic import BaseModel, ValidationError, create_model

from jina_asgi.codecs import Codec, codec, pack, unpack
from jina_asgi.errors import InvalidDocs, InvalidRequest, TooLarge, UnsupportedMedia
from jina_asgi.readers import errors_of
from jina_asgi.settings import Limits
from jina_asgi.types import Docs, Endpoint, Result

JSON, MSGPACK, PROTOBUF = "application/json", "application/msgpack", "application/x-protobuf"


class Header(BaseModel):
    """The `header` of a request, as Jina's clients send it."""

    request_id: str
    target_executor: str | None = None


class Request(NamedTuple):
    """A body read: typed docs, parameters, the request's own id if it has one, and the form of the answer."""

    docs: Docs
    parameters: dict[str, Any]
    request_id: str | None
    columns: bool = False


class Bodies:
    """The bodies of one endpoint."""

    def __init__(self, endpoint: Endpoint, limits: Limits) -> None:
        self.input: Codec = codec(endpoint.input)
        self._limits = limits
        self._single: type[BaseModel] | None = None
        self._union: type[BaseModel] | None = None
        if self.input.is_plain:
            self._list = self._model(list[self.input.model])  # type: ignore[name-defined]  # a class at run time
            self._validate = self._list.__pydantic_validator__.validate_json

    def _model(self, data: Any) -> type[BaseModel]:
        parameters: Any = dict[str, Any] | None
        header: Any = Header | None
        return create_model("Body", data=(data, ...), parameters=(parameters, None), header=(header, None))

    def read(self, media: str, raw: bytes) -> Request:
        """The body of a request.

        Raises:
            InvalidRequest: not JSON or msgpack at all. InvalidDocs: not of the schema. TooLarge: too many docs.
            UnsupportedMedia: another content type.
        """
        if media == JSON:
            return self._read_plain(raw) if self.input.is_plain else self._read_values(_loads(raw))
        if media == MSGPACK:
            body = unpack(raw)
            if not isinstance(body, dict):
                raise InvalidRequest("expected a msgpack map with the key 'data'")
            return self._read_values(body)
        if media == PROTOBUF:
            raise UnsupportedMedia("protobuf bodies need the extra: pip install 'jina-asgi[grpc]'")
        raise UnsupportedMedia(f"expected content-type {JSON} or {MSGPACK}, got {media or 'none'!r}")

    def read_doc(self, value: dict[str, Any]) -> Request:
        """One bare document, as a GET of a streaming endpoint sends it."""
        try:
            return Request(self.input.docs(self.input.read([value])), {}, None)
        except InvalidDocs as error:
            entries = [{**e, "loc": ["query", *e["loc"][1:]]} for e in error.errors]
            raise InvalidDocs(error.message, entries) from error

    def _read_plain(self, raw: bytes) -> Request:
        """Straight from JSON by pydantic: a list first, then one object, then both for the errors' sake."""
        if b"NaN" in raw or b"Infinity" in raw or raw.count(b"{") + raw.count(b"[") > self._limits.depth:
            _strictly(raw, self._limits.depth)
        try:
            body = self._validate(raw).__dict__
            docs = body["data"]
        except ValidationError as error:
            body = self._read_single(raw, error)
            docs = [body["data"]]
        if len(docs) > self._limits.docs:
            raise TooLarge(f"expected at most {self._limits.docs} docs, got {len(docs)}")
        header = body["header"]
        wrapped = self.input.docs(self.input.wrap(docs))
        return Request(wrapped, body["parameters"] or {}, None if header is None else header.request_id)

    def _read_single(self, raw: bytes, error: ValidationError) -> dict[str, Any]:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if first["type"] == "json_invalid":
            raise InvalidRequest(f"the body is not JSON: {first['msg']}")
        if self._single is None:
            self._single = self._model(self.input.model)
            self._union = self._model(list[self.input.model] | self.input.model)  # type: ignore[name-defined]
        try:
            return self._single.__pydantic_validator__.validate_json(raw).__dict__
        except ValidationError:
            pass
        assert self._union is not None
        try:
            return self._union.__pydantic_validator__.validate_json(raw).__dict__
        except ValidationError as both:
            raise _invalid(errors_of(both)) from None

    def _read_values(self, body: Any) -> Request:
        if not isinstance(body, dict) or "data" not in body:
            raise _invalid([{"type": "missing", "loc": ["data"], "msg": "Field required", "input": None}])
        data, parameters, header = body["data"], body.get("parameters"), body.get("header")
        if not isinstance(parameters, dict | None):
            raise _invalid([{"type": "dict_type", "loc": ["parameters"], "msg": "Input should be a valid dictionary"}])
        request_id = None if header is None else self._header(header).request_id
        columns = isinstance(data, dict) and set(data) == {"columns"} and isinstance(data["columns"], dict)
        name = self.input.schema.name
        try:
            if columns:
                docs = self.input.from_columns(data["columns"])
            elif isinstance(data, list):
                if len(data) > self._limits.docs:
                    raise TooLarge(f"expected at most {self._limits.docs} docs, got {len(data)}")
                docs = self.input.read(data)
            else:
                docs = self.input.read([data])
        except InvalidDocs as error:
            listed = columns or isinstance(data, list)
            where = (lambda loc: [f"list[{name}]", *loc]) if listed else (lambda loc: [name, *loc[1:]])
            raise _invalid([{**e, "loc": ["data", *where(e["loc"])]} for e in error.errors], error.message) from error
        if len(docs) > self._limits.docs:
            raise TooLarge(f"expected at most {self._limits.docs} docs, got {len(docs)}")
        return Request(self.input.docs(docs), parameters or {}, request_id, columns)

    @staticmethod
    def _header(value: Any) -> Header:
        try:
            return Header.model_validate(value)
        except ValidationError as error:
            raise _invalid([{**e, "loc": ["header", *e["loc"]]} for e in errors_of(error)]) from None


def answer(result: Result, parameters: dict[str, Any], request_id: str, media: str, *, columns: bool = False) -> bytes:
    """The body of an answer in the media type asked for.

    Raises:
        ExecutorError, InvalidDocs: a value among the docs has no such form.
    """
    docs = result.docs
    writer: Codec = docs.codec
    if result.results:
        parameters = {**parameters, "__results__": result.results}
    header = {"request_id": request_id, "target_executor": ""}
    if media == JSON:
        return writer.dumps({"data": writer.to_json(docs.typed), "parameters": parameters, "header": header})
    data: Any = {"columns": writer.to_columns(docs.typed)} if columns else writer.to_values(docs.typed)
    return pack({"data": data, "parameters": dict(parameters), "header": header})


def exec_endpoint(media: str, raw: bytes) -> str:
    """The endpoint that the body of `POST /post` names."""
    body = _loads(raw) if media == JSON else unpack(raw)
    name = body.get("exec_endpoint") if isinstance(body, dict) else None
    return name if isinstance(name, str) else "/default"


def loads_object(raw: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InvalidRequest: the bytes are no JSON, or something else.
    """
    value = _loads(raw)
    if not isinstance(value, dict):
        raise InvalidRequest("expected a JSON object")
    return value


def _loads(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None


def _strictly(raw: bytes, depth: int) -> None:
    """Refuse what pydantic's parser lets pass: NaN, Infinity, and more than `depth` levels."""
    level = [_loads(raw)]
    for _ in range(depth):
        level = [
            inner
            for item in level
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise TooLarge(f"the body nests deeper than {depth}")


def _invalid(entries: list[dict[str, Any]], message: str = "the body does not match the schema") -> InvalidDocs:
    return InvalidDocs(message, [{**entry, "loc": ["body", *entry["loc"]]} for entry in entries])


__all__ = ["JSON", "MSGPACK", "Bodies", "Request", "answer", "exec_endpoint", "loads_object"]
