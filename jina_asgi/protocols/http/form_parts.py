"""Parses `multipart/form-data` bodies into parts, block by block. Needs python-multipart, of the extra `uploads`."""

from __future__ import annotations

from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from jina_asgi.errors import InvalidRequest, TooLarge
from jina_asgi.protocols.http.upload import Part, Upload

#: Bytes of the headers of one part.
_HEADERS = 2**14


class FormParser:
    """Parses a form.

    Args:
        content_type: that of the request, with the boundary.
        upload: receives the parts.
        limit: the maximal number of parts.

    Raises:
        InvalidRequest: there is no boundary.
    """

    def __init__(self, content_type: bytes, upload: Upload, limit: int) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise InvalidRequest("expected a boundary in the content-type of multipart/form-data")
        self._upload, self._limit, self._count = upload, limit, 0
        self._delimiter, self._delimiters = b"\r\n--" + boundary, 0
        self._field, self._value, self._size = b"", b"", 0
        self._headers: dict[bytes, bytes] = {}
        self._ended = False
        callbacks: Any = {  # its type is for type checkers only
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_end": self._last,
        }
        try:
            self._parser: Any = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise _no_form(error) from None

    def write(self, block: bytes) -> None:
        """Parse the next block.

        Raises:
            InvalidRequest: it is not a form. TooLarge: it has too many parts.
        """
        self._delimiters += block.count(self._delimiter)
        # Within a part, where they are not allowed, the parser would need 3 µs for each.
        if self._delimiters > self._limit + 1:
            raise self._too_many()
        try:
            self._parser.write(block)
        except FormParserError as error:
            raise _no_form(error) from None

    def end(self) -> None:
        """End the body.

        Raises:
            InvalidRequest: the form is incomplete.
        """
        if not self._ended:
            raise InvalidRequest("the form ends within a part; expected its last boundary")

    def close(self) -> None:
        """Free the parser, whose callbacks refer to this object."""
        self._parser = None

    def _too_many(self) -> TooLarge:
        return TooLarge(f"expected at most {self._limit} parts; the option `limits` of JinaASGI raises this")

    def _begin(self) -> None:
        if self._count >= self._limit:
            raise self._too_many()
        self._count += 1
        self._headers, self._size = {}, 0

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._upload.add(data[start:end])

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._grow(end - start)
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._grow(end - start)
        self._value += data[start:end]

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > _HEADERS:
            raise InvalidRequest(f"expected at most {_HEADERS} bytes of headers in each part")

    def _header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field, self._value = b"", b""

    def _headers_finished(self) -> None:
        options = parse_options_header(self._headers.get(b"content-disposition", b""))[1]
        media, _ = parse_options_header(self._headers.get(b"content-type", b""))
        try:
            name, filename = options[b"name"].decode(), options.get(b"filename")
            named = None if filename is None else filename.decode()
        except (KeyError, UnicodeDecodeError):
            raise InvalidRequest("expected a name in UTF-8 in the content-disposition of each part") from None
        self._upload.begin(Part(name, b"", media.decode("latin-1").lower(), named))

    def _last(self) -> None:
        self._ended = True


def _no_form(error: Exception) -> InvalidRequest:
    return InvalidRequest(f"the body is not multipart/form-data: {error}")
