"""Decides whether a page of another origin may open a WebSocket, as CORS does not apply to WebSockets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

_PORTS = {"http": "80", "https": "443", "ws": "80", "wss": "443"}


def may_connect(headers: Iterable[tuple[bytes, bytes]], cors: bool | Sequence[str]) -> bool:
    """Whether a client may connect: it is not a page, or a page of this host or of an origin in `cors`.

    Args:
        headers: the handshake's, names in lower case.
        cors: the option of JinaASGI: True for all origins, or those allowed beside our own.
    """
    found: dict[bytes, list[str]] = {b"origin": [], b"host": []}
    for name, value in headers:
        if name in found:
            found[name].append(value.decode("latin-1").strip())
    origins, hosts = found[b"origin"], found[b"host"]
    if not origins or cors is True:
        return True
    if len(origins) > 1:
        return False
    allowed = cors or ()
    return origins[0] in allowed or "*" in allowed or (len(hosts) == 1 and _is_same(origins[0], hosts[0]))


def _is_same(origin: str, host: str) -> bool:
    """Whether an origin is that of the requested host; either may omit its scheme's default port."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    if parts.scheme not in _PORTS or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
        return False
    implied = f":{_PORTS[parts.scheme]}"
    return parts.netloc.lower().removesuffix(implied) == host.lower().removesuffix(implied)
