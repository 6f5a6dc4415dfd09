"""Parses the address of a Client's server, in every form that Jina accepts for `host`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from jina_asgi.errors import DefinitionError

_PROTOCOLS = ("grpc", "http", "websocket")
#: Schemes of a host: the protocol, and whether it is encrypted.
_SCHEMES = {
    **{name: (name, False) for name in _PROTOCOLS},
    "ws": ("websocket", False),
    "grpcs": ("grpc", True),
    "https": ("http", True),
    "wss": ("websocket", True),
    "websockets": ("websocket", True),
}


@dataclass(frozen=True, slots=True)
class Address:
    """A server's protocol, host and port, and the prefix of its endpoints ("" at the root).

    Attributes:
        others: further servers with the same endpoints, as gRPC writes addresses.
    """

    protocol: str
    host: str
    port: int
    tls: bool
    prefix: str = ""
    others: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """The address as gRPC writes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The prefix of the endpoints as an HTTP URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.tls else ''}://{host}:{self.port}{self.prefix}"


def address_of(host: str, port: int | None, protocol: str, *, tls: bool = False) -> Address:
    """Parses `host`; a scheme in it overrides the protocol, as in Jina. "a:1,b:1" are several servers over gRPC.

    Raises:
        DefinitionError: an invalid protocol, scheme, host or port; two different ports; several servers in another
            protocol, or with and without encryption.
    """
    first, *others = [_address(one.strip(), port, protocol, tls=tls) for one in host.split(",")]
    if not others:
        return first
    if {(one.protocol, one.tls) for one in (first, *others)} != {("grpc", first.tls)}:
        raise DefinitionError(
            f"Client(host={host!r}): expected several servers over gRPC only, all of them with TLS or none"
        )
    return replace(first, others=tuple(other.target for other in others))


def _address(host: str, port: int | None, protocol: str, *, tls: bool) -> Address:
    protocol = str(protocol).lower()
    if protocol not in _PROTOCOLS:
        raise DefinitionError(f"Client(protocol={protocol!r}): expected one of {', '.join(map(repr, _PROTOCOLS))}")
    try:
        parts = urlsplit(host if "://" in host else f"//{host}")
        named = parts.port
    except ValueError as error:
        raise DefinitionError(f"Client(host={host.rpartition('@')[2]!r}): {error}") from None
    if parts.scheme:
        if parts.scheme.lower() not in _SCHEMES:
            raise DefinitionError(f"Client(host={host!r}): expected a scheme among {', '.join(_SCHEMES)}")
        protocol, encrypted = _SCHEMES[parts.scheme.lower()]
        tls = tls or encrypted
    if not parts.hostname or parts.username or parts.query or parts.fragment:
        raise DefinitionError(
            f"Client(host=...): expected 'host', 'host:port' or 'http://host:port/prefix', without a user, a query or a"
            f" fragment; got one for the host {parts.hostname!r}"
        )
    if port is not None and named is not None and port != named:
        raise DefinitionError(f"Client(host={host!r}, port={port}) names two ports")
    found = port if port is not None else named if named is not None else 443 if tls else 80
    return Address(protocol, parts.hostname, found, tls, parts.path.rstrip("/"))
