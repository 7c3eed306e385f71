"""Methods beside those that do the work: OPTIONS, HEAD, and those that a path does not have."""

from __future__ import annotations

import pytest

from tests.http.raw_http import BODY, assert_error, connect, exchange
from tests.serving import Running

HOT = "/v1/chat/completions"
ALLOWED = [
    (HOT, "OPTIONS, POST"),
    ("/tokenize", "OPTIONS, POST"),
    ("/v1/route", "OPTIONS, POST"),
    ("/v1/models", "GET, HEAD, OPTIONS"),
    ("/v1/models/org/name:tier", "GET, HEAD, OPTIONS"),
    ("/metrics", "GET, HEAD, OPTIONS"),
    ("/admin/budgets/a/b", "DELETE, GET, HEAD, OPTIONS, PUT"),
]


async def call(running: Running, method: str, path: str, version: str = "1.1") -> bytes:
    """Everything that comes back on a connection."""
    async with connect(running.url) as (reader, writer):
        head = f"{method} {path} HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        return await reader.read()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_options(running: Running, version: str) -> None:
    """OPTIONS names the methods of a path, without a body, a key, or a permission for web pages."""
    for path, allow in (
        *ALLOWED,
        ("*", "DELETE, GET, HEAD, OPTIONS, POST, PUT"),
        (f"{HOT}/", "OPTIONS, POST"),
    ):
        head, _, body = (await call(running, "OPTIONS", path, version)).lower().partition(b"\r\n\r\n")
        assert head.startswith(b"http/1.1 204 "), head
        assert f"allow: {allow}".lower().encode() in head.split(b"\r\n")
        assert not body
        for unwanted in (b"access-control-", b"content-length", b"transfer-encoding"):
            assert unwanted not in head
    assert (await call(running, "OPTIONS", "/nothing")).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("method", ["PATCH", "TRACE", "BREW"])
async def test_other_methods(running: Running, method: str) -> None:
    """A method that a path does not have gets a 405, with all that it has."""
    for path, allow in ALLOWED:
        answer = await exchange(running.url, f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert_error(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == allow


async def test_options_keeps_the_connection(running: Running) -> None:
    """A 204 has no body, so the next request on the connection is served."""
    async with connect(running.url) as (reader, writer):
        writer.write(
            f"OPTIONS {HOT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
        )
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = await reader.read()

    assert (received.count(b"HTTP/1.1 204 "), received.count(b"HTTP/1.1 200 OK")) == (1, 1)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_head(running: Running, version: str) -> None:
    """HEAD has the head of GET and no body, for errors too."""
    for path in (
        "/healthz",
        "/readyz",
        "/health",
        "/v1/models",
        "/v1/models/tiny",
        "/metrics",
        "/docs",
        "/nothing",
    ):
        got, headed = await call(running, "GET", path, version), await call(running, "HEAD", path, version)
        assert headed.endswith(b"\r\n\r\n") and headed.count(b"\r\n\r\n") == 1
        assert headed.split(b"\r\n")[0] == got.split(b"\r\n")[0]
