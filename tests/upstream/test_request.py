"""A request to a replica: its head, and what identifies it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.models import Replica
from gateway.upstream.pool import Backend
from gateway.upstream.quarantine import fingerprint_of
from gateway.upstream.request import UpstreamRequest


@pytest.mark.parametrize(
    ("replica", "lines"),
    [
        ({"url": "http://a:8000/v1"}, b"Host: a:8000\r\n"),
        ({"url": "http://a/prefix", "api_key": "s"}, b"Host: a\r\n"),
        ({"url": "http://u:p@a"}, b"Host: a\r\nAuthorization: Basic dTpw\r\n"),
    ],
    ids=["plain", "prefix and key", "user"],
)
def test_head(replica: dict[str, Any], lines: bytes) -> None:
    """The head names the server, the key that the replica wants, and the request's own headers."""
    backend = Backend("a", Replica.model_validate(replica))
    path = b"/prefix/v1/x" if "prefix" in replica["url"] else b"/v1/x"
    key = b"Authorization: Bearer s\r\n" if "api_key" in replica else b""
    request = UpstreamRequest("/v1/x", b"body", [(b"X-Request-Id", b"1"), (b"accept", b"\xff")])

    assert request.head(backend, 4) == (
        b"POST " + path + b" HTTP/1.1\r\n" + lines + b"Content-Type: application/json\r\n" + key
        + b"X-Request-Id: 1\r\naccept: \xff\r\nContent-Length: 4\r\n\r\n"
    )  # fmt: skip


def test_fingerprint_outlives_the_body() -> None:
    """What the client sent identifies the request, also after its body was forgotten."""
    first, second = (UpstreamRequest("/v1/x", b"sent", [], received=b"received") for _ in range(2))
    second.forget_received()

    assert second.received == b""
    assert first.fingerprint == second.fingerprint == fingerprint_of("/v1/x", b"received")


def test_requests_share_nothing() -> None:
    """The replicas that one request tried are its own."""
    first, second = (UpstreamRequest("/v1/x", b"", []) for _ in range(2))
    first.tried.append("a")

    assert second.tried == []
