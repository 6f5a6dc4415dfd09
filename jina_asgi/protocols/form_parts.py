"""The parts of a `multipart/form-data` body. Needs python-multipart, of the extra `uploads`."""

from __future__ import annotations

from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from jina_asgi.errors import InvalidRequest, TooLarge
from jina_asgi.protocols.form_fields import Part


def parts_of(content_type: bytes, raw: bytes, limit: int) -> list[Part]:
    """The parts of a form, in order.

    Raises:
        InvalidRequest: it is no form, or does not end. TooLarge: it has more than `limit` parts.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise InvalidRequest("expected a boundary in the content-type of multipart/form-data")
    form = _Form(limit)
    try:
        MultipartParser(boundary, form.callbacks).write(raw)
    except FormParserError as error:
        raise InvalidRequest(f"the body is no multipart/form-data: {error}") from None
    if not form.ended:
        raise InvalidRequest("the form ends within a part; expected its last boundary")
    return form.parts


class _Form:
    """What the parser tells while it reads one buffer: where headers and data are."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._field, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []
        self.parts: list[Part] = []
        self.ended = False
        self.callbacks: Any = {  # its type is there for checkers alone
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_end": self._last,
        }

    def _begin(self) -> None:
        if len(self.parts) >= self._limit:
            raise TooLarge(f"expected at most {self._limit} parts; the option `limits` of JinaASGI raises this")
        self._headers, self._pieces = {}, []

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field, self._value = b"", b""

    def _end(self) -> None:
        options = parse_options_header(self._headers.get(b"content-disposition", b""))[1]
        media, _ = parse_options_header(self._headers.get(b"content-type", b""))
        try:
            name, filename = options[b"name"].decode(), options.get(b"filename")
            named = None if filename is None else filename.decode()
        except (KeyError, UnicodeDecodeError):
            raise InvalidRequest("expected a name in UTF-8 in the content-disposition of each part") from None
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self.parts.append(Part(name, data, media.decode("latin-1").lower(), named))

    def _last(self) -> None:
        self.ended = True
