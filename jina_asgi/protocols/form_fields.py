"""What one part of a form, or one file, is in a field: its bytes, its text, a number, JSON, or the array in a picture."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import orjson

from jina_asgi import media
from jina_asgi.mismatch import Mismatch
from jina_asgi.protocols.body_weight import JSON
from jina_asgi.types import Field

OCTETS = "application/octet-stream"
LISTS = ("list", "set", "tuple", "docs")
_SCALARS: Mapping[str, tuple[type, ...]] = {"int": (int,), "float": (float, int), "bool": (bool,)}
_STRUCTURES = (*LISTS, "dict", "doc")


class Part(NamedTuple):
    """One part: its name, its bytes, and what its client says of them; `filename` is None where it is no file."""

    name: str
    data: bytes
    media: str = ""
    filename: str | None = None


def is_left_empty(field: Field, part: Part) -> bool:
    """Whether a page's form has sent what its user left empty: no file, or no text where text is no value."""
    if part.data:
        return False
    return part.filename == "" if part.filename is not None else field.kind not in ("str", "bytes")


def values_of(field: Field, parts: list[Part]) -> list[Any]:
    """The items of a field that holds several: one part each, or all in one part of JSON.

    Raises:
        Mismatch: a part is none, at its index.
    """
    if len(parts) == 1 and _is_json_list(parts[0]):
        found = _json(parts[0].data)
        if isinstance(found, list):
            return found
    items = field.items if field.kind == "tuple" else field.items[:1] * len(parts)
    if field.kind == "docs":
        items = (Field("", "doc", doc=field.doc),) * len(parts)
    made = []
    for index, part in enumerate(parts):
        try:
            made.append(value_of(items[index] if index < len(items) else Field("", "json"), part))
        except ValueError as error:
            raise Mismatch.within(error, index) from None
    return made


def value_of(field: Field, part: Part) -> Any:
    """The value of a field that one part holds, as its reader takes it.

    Raises:
        ValueError: it is none. TooLarge, UnsupportedMedia: of a picture or a sound.
    """
    kind = _member(field, part) if field.kind == "union" else field
    if kind.kind == "bytes":
        return part.data
    if kind.kind == "tensor":
        return _array(kind, part)
    if kind.kind in _STRUCTURES or (part.media == JSON and kind.kind != "str"):
        return _json(part.data)
    text = _text(part.data)
    wanted = _SCALARS.get(kind.kind)
    if wanted is None:
        return text
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text  # the class says what it makes of it
    return found if type(found) in wanted else text


def takes_file(field: Field, of_media: str) -> bool:
    """Whether a file of such a media type may be a field by itself."""
    if field.kind == "union":
        return any(takes_file(item, of_media) for item in field.items)
    return field.kind == "bytes" or (field.kind == "tensor" and media.is_decodable(of_media))


def holds_files(field: Field) -> Literal["one", "several", ""]:
    """Whether a field is a file, or a list of some."""
    if field.kind in ("list", "set") and field.items:
        return "several" if holds_files(field.items[0]) else ""
    return "one" if takes_file(field, "image/png") else ""


def _member(field: Field, part: Part) -> Field:
    """The member of a union that a part is for."""
    if part.filename is not None or media.is_decodable(part.media):
        for kind in ("bytes", "tensor"):
            for item in field.items:
                if item.kind == kind:
                    return item
    for item in field.items:
        if item.kind in ("str", "json"):
            return item
    return Field("", "dict") if part.data[:1] in (b"{", b"[") else Field("", "json")


def _array(field: Field, part: Part) -> Any:
    found = part.media
    if found in ("", OCTETS) and part.filename:
        found = mimetypes.guess_type(part.filename)[0] or found
    if media.is_decodable(found):
        return media.decoded(found, part.data, field)
    if part.filename is not None and found not in (JSON, "text/plain"):
        raise ValueError(f"expected a picture, a sound, or JSON of numbers, got a file of {found[:64] or 'no type'}")
    return _json(part.data)


def _is_json_list(part: Part) -> bool:
    return part.media == JSON or (part.filename is None and part.data.lstrip()[:1] == b"[")


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Mismatch(f"expected JSON: {error}", "json_invalid") from None


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Mismatch("expected text in UTF-8", "string_unicode") from None
