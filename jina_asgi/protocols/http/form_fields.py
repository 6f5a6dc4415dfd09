"""Converts one part of a form, or one file, to a field's value: bytes, a path, text, a number, JSON, or an array."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Mapping
from typing import Any, Literal

import orjson

from jina_asgi.documents import field_plans, media
from jina_asgi.documents.conversions import Mismatch
from jina_asgi.errors import InvalidRequest
from jina_asgi.protocols.http.json_pieces import loads
from jina_asgi.protocols.http.upload import Part
from jina_asgi.protocols.size_guard import JSON, JsonBudget, needs_patience
from jina_asgi.settings import Limits
from jina_asgi.types import Field

OCTETS = "application/octet-stream"
LISTS = ("list", "set", "tuple", "docs")
_SCALARS: Mapping[str, tuple[type, ...]] = {"int": (int,), "float": (float, int), "bool": (bool,)}
_STRUCTURES = (*LISTS, "dict", "doc")
#: The longest text that is read as a number.
_DIGITS = 400


def is_left_empty(field: Field, part: Part) -> bool:
    """Whether a part is an empty input of a page's form: no file, or no text for a field that is not text."""
    if part.size:
        return False
    return part.filename == "" if part.filename is not None else field.kind not in ("str", "bytes")


class PartReader:
    """Converts the parts of one request.

    Args:
        limits: those of the application; all JSON in the parts together may hold as many values as a JSON body.
        path_of: returns the path of a part's file.
        patiently: this runs in a thread, and lets other threads run.
    """

    def __init__(self, limits: Limits, path_of: Callable[[Part], str], *, patiently: bool) -> None:
        self._limits, self._path_of, self._patiently = limits, path_of, patiently
        self._budget = JsonBudget(limits.values)

    def values(self, field: Field, parts: list[Part]) -> list[Any]:
        """Converts the items of a list field: one part for each, or one part of JSON.

        Raises:
            Mismatch: a part is invalid, with its index.
        """
        if len(parts) == 1 and _is_json_list(parts[0]):
            found = self._json(parts[0].data)
            if isinstance(found, list):
                return found
        items = field.items if field.kind == "tuple" else field.items[:1] * len(parts)
        if field.kind == "docs":
            items = (Field("", "doc", doc=field.doc),) * len(parts)
        made = []
        for index, part in enumerate(parts):
            try:
                made.append(self.value(items[index] if index < len(items) else Field("", "json"), part))
            except ValueError as error:
                raise Mismatch.within(error, index) from None
        return made

    def value(self, field: Field, part: Part) -> Any:
        """Converts one part to a value for the field's reader.

        Raises:
            ValueError: it is invalid. TooLarge: it is too large a picture, sound, or JSON. UnsupportedMedia: its decoder is
            not installed. Overloaded: there is no room for its file.
        """
        kind = _member(field, part) if field.kind == "union" else field
        if kind.file:
            if part.filename is None:  # a text would name a file of this machine
                raise Mismatch("expected a file, got text: a part with a filename", "file_type")
            return self._path_of(part)
        if kind.kind == "bytes":
            return part.data
        if kind.kind == "tensor":
            return self._array(kind, part)
        if kind.kind in _STRUCTURES or (part.media == JSON and kind.kind != "str"):
            return self._json(part.data)
        text = _text(part.data)
        wanted = _SCALARS.get(kind.kind)
        if wanted is None or len(text) > _DIGITS:
            return text
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError:
            return text  # the class validates it
        return found if type(found) in wanted else text

    def _array(self, field: Field, part: Part) -> Any:
        found = part.media
        if found in ("", OCTETS) and part.filename:
            found = mimetypes.guess_type(part.filename)[0] or found
        if media.is_decodable(found):
            return media.decoded(found, part.data, field)
        if part.filename is not None and found not in (JSON, "text/plain"):
            raise ValueError(
                f"expected a picture, a sound, or JSON of numbers, got a file of {found[:64] or 'no type'}"
            )
        return self._json(part.data)

    def _json(self, data: bytes) -> Any:
        self._budget.spend(data)
        try:
            if self._patiently and needs_patience(JSON, data):
                return loads(data, self._limits.depth + 64)
            return orjson.loads(data)
        except (orjson.JSONDecodeError, InvalidRequest) as error:
            raise Mismatch(f"expected JSON: {error}", "json_invalid") from None


def takes_file(field: Field, of_media: str) -> bool:
    """Whether a file of this media type can be the field's value."""
    if field.kind == "union":
        return any(takes_file(item, of_media) for item in field.items)
    return field.file or field.kind == "bytes" or (field.kind == "tensor" and media.is_decodable(of_media))


def holds_files(field: Field) -> Literal["one", "several", ""]:
    """Whether a field is a file, or a list of files."""
    if field.kind in ("list", "set") and field.items:
        return "several" if holds_files(field.items[0]) else ""
    return "one" if takes_file(field, "image/png") else ""


def _member(field: Field, part: Part) -> Field:
    """The member of a union that a part is for."""
    if part.filename is not None or media.is_decodable(part.media):
        for is_it in (_is("bytes"), _is("tensor"), field_plans.takes_path):
            for item in field.items:
                if is_it(item):
                    return item
    for item in field.items:
        if item.kind in ("str", "json") and not item.file:
            return item
    if any(item.file for item in field.items):
        return next(item for item in field.items if item.file)
    return Field("", "dict") if part.head[:1] in (b"{", b"[") else Field("", "json")


def _is(kind: str) -> Callable[[Field], bool]:
    return lambda field: field.kind == kind


def _is_json_list(part: Part) -> bool:
    return part.media == JSON or (part.filename is None and part.head[:1] == b"[")


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Mismatch("expected text in UTF-8", "string_unicode") from None
