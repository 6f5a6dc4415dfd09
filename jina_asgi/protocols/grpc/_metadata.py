"""Converts headers to gRPC's metadata, which allows fewer names and values than HTTP."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

_NAME, _TEXT = re.compile(r"[0-9a-z_.-]+"), re.compile(r"[ -~]*")
#: The allowed headers, for messages.
EXPECTED = "names of letters, digits, '-', '_' and '.', and values of ASCII, or of base64 where the name ends in '-bin'"


def metadata_of(headers: Mapping[str, str]) -> tuple[tuple[tuple[str, str | bytes], ...], list[str]]:
    """Headers as metadata, and the names of those that it does not allow."""
    found: list[tuple[str, str | bytes]] = []
    unfit: list[str] = []
    for key, text in headers.items():
        name = key.lower()
        value = _value(name, text)
        if value is None:
            unfit.append(key)
        else:
            found.append((name, value))
    return tuple(found), unfit


def _value(name: str, text: str) -> str | bytes | None:
    if not _NAME.fullmatch(name):
        return None
    if not name.endswith("-bin"):  # "grpc-..." are gRPC's own headers
        return text if _TEXT.fullmatch(text) and not name.startswith("grpc-") else None
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
