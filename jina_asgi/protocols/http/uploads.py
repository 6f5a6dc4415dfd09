"""Reads forms and files as bodies: each part of a form, or the one file, is a field of a document.

A repeated name makes a list if the field is a list, else several documents; a part that occurs once is in each of them.
The parts `data`, `parameters` and `header` are JSON, as in a JSON body.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any
from urllib.parse import parse_qsl

from jina_asgi.documents import field_plans
from jina_asgi.documents.conversions import Mismatch, errors_of
from jina_asgi.errors import InvalidDocs, InvalidRequest, TooLarge, UnsupportedMedia
from jina_asgi.protocols.http.bodies import Bodies, Request, unsupported
from jina_asgi.protocols.http.form_fields import LISTS, OCTETS, PartReader, is_left_empty, takes_file
from jina_asgi.protocols.http.upload import Alone, Part, Upload
from jina_asgi.protocols.size_guard import SMALL
from jina_asgi.settings import Limits
from jina_asgi.types import Endpoint, Field

FORM = "multipart/form-data"
_FILES = ("image/", "audio/", "video/")
_OTHER_FILES = frozenset({OCTETS, "application/pdf", "application/zip"})
#: Parts that are not fields, unless the document has fields of these names.
_ENVELOPE = ("data", "parameters", "header")


class Uploads:
    """The forms and files of one endpoint.

    Args:
        endpoint: the endpoint of the documents.
        bodies: reads the documents.
        limits: those of the application.
    """

    def __init__(self, endpoint: Endpoint, bodies: Bodies, limits: Limits) -> None:
        self._bodies, self._limits = bodies, limits
        self._fields = {field.name: field for field in endpoint.input.fields}
        self._paths = {name for name, field in self._fields.items() if field_plans.takes_path(field)}
        self._keeps_extra = field_plans.keeps_extra(endpoint.input, endpoint.input.name) is not None
        self._decodes = bool(field_plans.documents_with(endpoint.input, lambda field: field.kind == "tensor"))

    def is_heavy(self, upload: Upload) -> bool:
        """Whether a body should be read in a thread: a small picture may have many pixels, and a disk is slow."""
        return self._decodes or bool(self._paths) or upload.size >= SMALL

    def begun(self, content_type: bytes, query: bytes, media: str) -> Upload | None:
        """Makes the receiver of a form or a file; None for other bodies.

        Raises:
            InvalidRequest: a form has no boundary. UnsupportedMedia: no field accepts such a file, or the extra for forms
            is not installed.
        """
        if media == FORM:
            return form(content_type, self._limits, self._paths)
        if not (media.startswith(_FILES) or media in _OTHER_FILES):
            return None
        taken = {part.name for part in _of_query(query)}
        part = Part(field_of(self._fields.values(), media, taken), b"", media, "")
        return Upload(self._limits, self._paths, lambda upload: Alone(upload, part))

    def read(self, query: bytes, media: str, upload: Upload, *, heavy: bool = False) -> Request:
        """Reads the documents of a form, or of a file with its other fields in the query.

        Raises:
            InvalidDocs: they do not fit the schema. TooLarge: over a limit. UnsupportedMedia: a field needs an extra that
            is not installed. Overloaded: there is no room for a file.
        """
        patiently = heavy and upload.size >= SMALL
        with upload.at_work():
            parts = upload.parts if media == FORM else [*_of_query(query), *upload.parts]
            reader = PartReader(self._limits, upload.path_of, patiently=patiently)
            return self._request(parts, reader, patiently=patiently)

    def _request(self, parts: list[Part], reader: PartReader, *, patiently: bool) -> Request:
        envelope, named = self._sorted(parts)
        body = self._envelope(envelope, reader)
        bases = body["data"] if isinstance(body["data"], list) else [body["data"]]
        if not all(isinstance(base, dict) for base in bases):
            raise InvalidDocs("expected a document, or a list of them, in the part 'data'")
        errors: list[dict[str, Any]] = []
        columns = {
            name: self._column(self._fields.get(name), name, given, reader, errors) for name, given in named.items()
        }
        count = max(len(bases), *map(len, columns.values()), 1) if columns else max(len(bases), 1)
        if count > self._limits.docs:
            raise TooLarge(f"expected at most {self._limits.docs} docs; the option `limits` of JinaASGI raises this")
        for name, values in {**columns, "data": bases}.items():
            if len(values) not in (1, count) and not (name == "data" and not values):
                message = f"expected one part {name!r}, or as many as there are documents: {count}, got {len(values)}"
                raise InvalidDocs(message, [{"type": "value_error", "loc": ["body", name], "msg": message}])
        docs = _documents(bases, columns, count)
        listed = count > 1 or isinstance(body["data"], list)
        return self._checked({**body, "data": docs if listed else docs[0]}, errors, patiently=patiently)

    def _checked(self, body: Mapping[str, Any], errors: list[dict[str, Any]], *, patiently: bool) -> Request:
        """Reads the documents of the request; the errors of parts and those of documents are raised together."""
        try:
            request = self._bodies.read_values(body, patiently=patiently, place=("body",))
        except InvalidDocs as error:
            wrong = {
                tuple(entry["loc"][1:2] if isinstance(entry["loc"][1], str) else entry["loc"][1:3]) for entry in errors
            }
            errors += [entry for entry in error.errors if not wrong & _fields_of(entry["loc"])]
            raise InvalidDocs(error.message, errors) from error
        if errors:
            raise InvalidDocs("the parts do not match the schema", errors)
        return request

    def _sorted(self, parts: list[Part]) -> tuple[dict[str, Part], dict[str, list[Part]]]:
        """Separates the parts `data`, `parameters` and `header` from the fields' parts, by name."""
        envelope: dict[str, Part] = {}
        named: dict[str, list[Part]] = {}
        for part in parts:
            field = self._fields.get(part.name)
            if field is None and part.name in _ENVELOPE:
                if part.size:  # an empty input of a page does not count
                    envelope[part.name] = part
            elif field is None:
                if self._keeps_extra:
                    named.setdefault(part.name, []).append(part)
            elif not is_left_empty(field, part):
                named.setdefault(part.name, []).append(part)
        return envelope, named

    def _envelope(self, given: Mapping[str, Part], reader: PartReader) -> dict[str, Any]:
        found: dict[str, Any] = {"data": {}}
        for name, part in given.items():
            try:
                found[name] = reader.value(Field(name, "dict"), part)
            except Mismatch as error:
                raise InvalidDocs(f"the part {name!r} is not JSON", _placed(error, name)) from None
        return found

    def _column(
        self, field: Field | None, name: str, parts: list[Part], reader: PartReader, errors: list[dict[str, Any]]
    ) -> list[Any]:
        """Converts the values of one field, one for each document; wrong ones are left out, and added to `errors`."""
        if field is None:
            return [part.data if part.filename is not None else part.data.decode(errors="replace") for part in parts]
        if field.kind in LISTS:
            try:
                return [reader.values(field, parts)]
            except ValueError as error:
                errors += _placed(error, name)
                return [_NOTHING]
        values: list[Any] = []
        for index, part in enumerate(parts):
            try:
                values.append(reader.value(field, part))
            except ValueError as error:
                errors += _placed(error, *([index] if len(parts) > 1 else []), name)
                values.append(_NOTHING)
        return values


def field_of(fields: Iterable[Field], media: str, taken: AbstractSet[str]) -> str:
    """The field for a file that is the whole body: the required one, or the one of bytes or a path, or the only one.

    Raises:
        UnsupportedMedia: there is none, or several.
    """
    found = [field for field in fields if field.name not in taken and takes_file(field, media)]
    for those in ([f for f in found if f.required], [f for f in found if f.kind == "bytes" or f.file], found):
        if len(those) == 1:
            return those[0].name
    if not found:
        raise unsupported(media)
    names = ", ".join(field.name for field in found)
    raise UnsupportedMedia(f"a body of {media} may be any of {names}; send {FORM}, with the part so named")


_NOTHING: Any = object()


def _documents(bases: list[dict[str, Any]], columns: Mapping[str, list[Any]], count: int) -> list[dict[str, Any]]:
    docs = []
    for index in range(count):
        doc = dict(_of(bases, index)) if bases else {}
        for name, values in columns.items():
            if (value := _of(values, index)) is not _NOTHING:
                doc[name] = value
        docs.append(doc)
    return docs


def _of(values: list[Any], index: int) -> Any:
    """A document's value, or a copy of the value for all documents."""
    if len(values) > 1 or index == 0:
        return values[index]
    return values[0] if values[0] is _NOTHING else copy.deepcopy(values[0])


def _placed(error: Exception, *place: str | int) -> list[dict[str, Any]]:
    return [{**entry, "loc": ["body", *place, *entry["loc"]]} for entry in errors_of(error)]


def _fields_of(place: list[Any]) -> set[tuple[Any, ...]]:
    """A place in the form for parts: the field, with or without the index of its document."""
    return {tuple(place[1:2]), tuple(place[1:3]), tuple(place[2:3])} - {()}


def _of_query(query: bytes) -> list[Part]:
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, max_num_fields=1000)
    except ValueError as error:
        raise InvalidRequest(f"the query string cannot be read: {error}") from None
    return [Part(name, text.encode(errors="surrogatepass")) for name, text in pairs]


def form(content_type: bytes, limits: Limits, paths: AbstractSet[str] = frozenset()) -> Upload:
    """Makes the receiver of a form, which needs the extra `uploads`.

    Args:
        content_type: that of the request.
        limits: those of the application.
        paths: the fields that get the path of a file.

    Raises:
        UnsupportedMedia: the extra is not installed. InvalidRequest: there is no boundary.
    """
    try:
        from jina_asgi.protocols.http.form_parts import FormParser
    except ModuleNotFoundError as error:
        raise UnsupportedMedia("multipart/form-data needs the extra: pip install 'jina-asgi[uploads]'") from error
    return Upload(limits, paths, lambda upload: FormParser(content_type, upload, limits.docs))
