"""Which headers pass through the gateway, in either direction."""

from __future__ import annotations

import pytest

from gateway.http.headers import forwarded, returned

HOP_BY_HOP = "connection keep-alive te trailer transfer-encoding upgrade".split()
PROXIES = "proxy-authenticate proxy-authorization proxy-connection".split()


@pytest.mark.parametrize("name", [*HOP_BY_HOP, *PROXIES, "host", "content-length", "expect"])
def test_hop_by_hop_headers_stay(name: str) -> None:
    """Headers about one connection pass in neither direction."""
    assert forwarded([(name.encode(), b"x")], []) == []
    assert returned([(name.encode(), b"x")]) == []


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "cookie"])
def test_credentials_are_not_forwarded(name: str) -> None:
    """The credentials of the client are for the gateway alone."""
    assert forwarded([(name.encode(), b"s3cret")], []) == []


@pytest.mark.parametrize("name", [b"set-cookie", b"server", b"date", b"x-request-id"])
def test_backend_does_not_speak_for_the_gateway(name: bytes) -> None:
    """Cookies, and headers that the gateway sets itself, are not returned."""
    assert returned([(name, b"x")]) == []


def test_connection_names_more() -> None:
    """Headers that `Connection` declares to be hop-by-hop do not pass, in either direction."""
    headers = [
        (b"connection", b"X-One , keep-alive"),
        (b"x-one", b"1"),
        (b"connection", b"x-two"),
        (b"x-two", b"2"),
    ]

    assert forwarded([*headers, (b"x-three", b"3")], []) == [(b"x-three", b"3")]
    assert returned([*headers, (b"x-three", b"3")]) == [(b"x-three", b"3")]


def test_everything_else_passes() -> None:
    """Unknown headers keep their values, including bytes above ASCII."""
    headers = [(b"traceparent", b"00-ab"), (b"x-name", "é".encode("latin-1")), (b"x-name", b"\xff")]

    assert forwarded(headers, []) == headers
    assert returned([(b"content-type", b"text/plain"), (b"x-a", b"1"), (b"x-a", b"2")]) == [
        (b"content-type", b"text/plain"),
        (b"x-a", b"1"),
        (b"x-a", b"2"),
    ]


def test_ours_replace_theirs() -> None:
    """A header of the gateway replaces the client's header of the same name, in any case."""
    client = [(b"x-request-id", b"theirs"), (b"content-type", b"text/plain"), (b"accept-encoding", b"gzip")]
    ours = [(b"Content-Type", b"application/json"), (b"X-Request-Id", b"ours")]

    assert forwarded(client, ours) == ours
