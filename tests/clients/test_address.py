"""Where a Client's server is."""

from __future__ import annotations

from typing import Any

import pytest

from jina_asgi.clients.address import Address, address_of
from jina_asgi.errors import DefinitionError


@pytest.mark.parametrize(
    ("given", "expected", "url"),
    [
        (("127.0.0.1", None, "http"), Address("http", "127.0.0.1", 80, False), "http://127.0.0.1:80"),
        (("127.0.0.1", 12345, "HTTP"), Address("http", "127.0.0.1", 12345, False), "http://127.0.0.1:12345"),
        (("models:99", None, "http"), Address("http", "models", 99, False), "http://models:99"),
        (("models:99", 99, "http"), Address("http", "models", 99, False), "http://models:99"),
        (("models:99/lm", None, "http"), Address("http", "models", 99, False, "/lm"), "http://models:99/lm"),
        (("http://models/lm/", 8000, "grpc"), Address("http", "models", 8000, False, "/lm"), "http://models:8000/lm"),
        (("https://models", None, "grpc"), Address("http", "models", 443, True), "https://models:443"),
        (("grpc://models:1", None, "http"), Address("grpc", "models", 1, False), None),
        (("grpcs://models", None, "http"), Address("grpc", "models", 443, True), None),
        (("ws://models:1", None, "http"), Address("websocket", "models", 1, False), None),
        (("wss://models:1", None, "http"), Address("websocket", "models", 1, True), None),
        (("http://[::1]:7", None, "grpc"), Address("http", "::1", 7, False), "http://[::1]:7"),
    ],
)
def test_a_host_may_be_written_in_all_of_jinas_ways(given: Any, expected: Address, url: str | None) -> None:
    address = address_of(*given)
    assert expected == address
    assert url is None or url == address.url


def test_tls_is_asked_for_by_the_option_too() -> None:
    assert "https://models:443" == address_of("models", None, "http", tls=True).url


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("models", None, "smtp"), "one of 'grpc', 'http', 'websocket'"),
        (("ftp://models", None, "http"), "a scheme among"),
        (("models:1", 2, "http"), "two ports"),
        (("models:x", None, "http"), "host='models:x'"),
        (("http://me:secret@models:x", None, "http"), "host='models:x'"),
        (("http://[::1", None, "http"), "Invalid IPv6"),
        (("http://me:secret@models", None, "http"), "without a user"),
        (("", None, "http"), "expected 'host'"),
    ],
)
def test_what_is_no_address_is_refused_and_a_password_not_repeated(given: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message) as refused:
        address_of(*given)
    assert "secret" not in str(refused.value)


def test_several_servers_over_grpc_are_each_others_like() -> None:
    address = address_of("grpcs://a:1, grpcs://[::1]:2", None, "http")
    assert ("grpc", True, "a:1", ("[::1]:2",)) == (address.protocol, address.tls, address.target, address.others)
    assert ("b:3",) == address_of("a,b", 3, "grpc").others


@pytest.mark.parametrize("host", ["http://a:1,http://b:1", "a:1,http://b:1", "grpc://a:1,grpcs://b:1", "a:1,", ","])
def test_several_servers_of_other_kinds_are_refused(host: str) -> None:
    with pytest.raises(DefinitionError, match="expected"):
        address_of(host, None, "grpc")
