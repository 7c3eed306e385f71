"""The address of the client, behind proxies that are trusted to tell it and behind others."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.http.addresses import client_address

PROXIES = [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")]


@pytest.mark.parametrize(
    ("socket_address", "forwarded", "expected"),
    [
        ("192.0.2.9", ["198.51.100.1"], "192.0.2.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1, 10.1.1.1"], "198.51.100.1"),
        ("10.0.0.1", ["10.2.2.2, 10.1.1.1"], "10.2.2.2"),
        ("10.0.0.1", ["198.51.100.1, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1:1234"], "198.51.100.1"),
        ("2001:db8::1", ["[2001:db9::7]:80"], "2001:db9::7"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("", ["198.51.100.1"], ""),
    ],
)
def test_client_address(socket_address: str, forwarded: list[str], expected: str) -> None:
    """The last address that is not a trusted proxy's counts; entries before it may be invented."""
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]

    assert client_address(socket_address, headers, PROXIES) == expected
    assert client_address(socket_address, headers, ()) == socket_address
