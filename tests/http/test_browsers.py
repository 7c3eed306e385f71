"""What web pages of other sites can do through a browser: nothing, unless they are configured."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import pytest

from gateway.config.loader import ConfigError, parse
from gateway.errors import GatewayError
from gateway.http.browsers import HostRule, check_media_type
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.raw_http import Answer, assert_error, exchange, post
from tests.http.wire import CHAT, ask
from tests.serving import Running, configuration, serving

EVIL = "https://evil.example"
PAGE = "https://chat.example.com"
SAVED = "models: {tiny: {family: qwen3, replicas: [{url: 'http://a'}]}}"


async def call(
    running: Running, method: str = "POST", path: str = CHAT, body: Any = None, **headers: str
) -> Answer:
    """A request with exactly these headers; write `x_a` for `x-a`."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    data = json.dumps(ask()).encode() if body is None and method == "POST" else body or b""
    request = post(path, data, *lines).replace(b"POST", method.encode(), 1)
    if "host" in headers:
        request = request.replace(b"host: test\r\n", b"", 1)
    return await exchange(running.url, request)


@pytest.mark.parametrize(
    "headers",
    [
        {b"content-type": b"text/plain;charset=UTF-8"},
        {b"content-type": b"application/x-www-form-urlencoded"},
        {b"content-type": b"multipart/form-data; boundary=x"},
        {b"content-type": b"application/jsonp"},
        {b"content-type": b"text/plain; application/json"},
        {b"content-type": b"application/json, text/plain"},
        {b"content-type": b""},
        {b"origin": EVIL.encode()},
        {b"origin": b"null"},
        {b"sec-fetch-site": b"cross-site", b"origin": EVIL.encode()},
        {b"sec-fetch-site": b"same-site"},
        {b"content-type": b"text/plain", b"authorization": b"Basic dXNlcjpwYXNzd29yZA=="},
        {b"content-type": b"text/plain", b"authorization": b"Negotiate YII"},
        {b"content-type": b"text/plain", b"authorization": b"Bearer ", b"x-api-key": b""},
    ],
    ids=str,
)
def test_media_type_is_refused(headers: Mapping[bytes, bytes]) -> None:
    """Every type that a page may send without asking is refused, and a missing one from another page."""
    with pytest.raises(GatewayError):
        check_media_type(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {b"content-type": b"application/json"},
        {b"content-type": b"Application/JSON; charset=utf-8"},
        {b"content-type": b"application/vnd.api+json"},
        {b"content-type": b"application/json", b"origin": EVIL.encode()},
        {b"content-type": b"text/json"},
        {b"content-type": b"application/x-www-form-urlencoded", b"authorization": b"Bearer key"},
        {b"content-type": b"application/x-www-form-urlencoded", b"x-api-key": b"key"},
        {b"origin": EVIL.encode(), b"authorization": b"bearer key"},
        {},
        {b"sec-fetch-site": b"same-origin", b"origin": b"http://127.0.0.1:8080"},
    ],
    ids=str,
)
def test_media_type_is_served(headers: Mapping[bytes, bytes]) -> None:
    """JSON with parameters, programs that send no type, and whoever sends a key, are served."""
    check_media_type(headers)


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings", "/v1/route"])
async def test_page_of_another_site(running: Running, backend: Backend, path: str) -> None:
    """A request that a page sends without asking gets a 415 that says what to send."""
    answer = await call(running, path=path, content_type="text/plain", origin=EVIL)

    assert_error(answer, 415, "unsupported_media_type")
    assert "-H 'Content-Type: application/json'" in answer.json["error"]["message"]
    assert "access-control-allow-origin" not in answer.headers
    assert path not in [request.path for request in backend.requests]


async def test_permission_of_the_backend_is_not_passed_on(running: Running, backend: Backend) -> None:
    """vLLM allows every page by default, but a page talks to the gateway."""
    backend.script(Fault(headers={"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "*"}))
    answer = await call(running, content_type="application/json", origin=EVIL)

    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("settings", "listener", "host", "allowed"),
    [
        ("", "127.0.0.1", "127.0.0.1:8080", True),
        ("", "127.0.0.1", "LOCALHOST", True),
        ("", "::1", "[::1]:8080", True),
        ("", "localhost", "app.localhost:80", True),
        ("", "127.0.0.1", "gateway:8080", True),
        ("", "127.0.0.1", "evil.example", False),
        ("", "127.0.0.1", "evil.example.:8080", False),
        ("", "127.0.0.1", "localhost.evil.example", False),
        ("", "127.0.0.1", "127.0.0.1.evil.example", False),
        ("", "127.0.0.1", "192.0.2.1", False),
        ("", "127.0.0.1", "[2001:db8::1]", False),
        ("", "0.0.0.0", "any.example", True),
        ("keys: [{name: k, key: k}]", "127.0.0.1", "any.example", True),
        ("server: {hosts: [Llm.example]}", "127.0.0.1", "llm.example:443", True),
        ("server: {hosts: [llm.example]}", "0.0.0.0", "other.example", False),
        ("server: {hosts: [llm.example]}", "0.0.0.0", "192.0.2.1:8080", True),
    ],
)
def test_host(settings: str, listener: str, host: str, allowed: bool) -> None:
    """On a loopback address without keys, or with `server.hosts`, a foreign name is refused."""
    rule = HostRule.of(parse(f"{SAVED}\n{settings}", {}), listener)
    try:
        if rule is not None:
            rule.check({b"host": host.encode()})
    except GatewayError as error:
        assert not allowed
        assert (error.status, error.code) == (421, "host_not_allowed")
        assert "server.hosts" in error.message
    else:
        assert allowed


@pytest.mark.parametrize(
    "path", ["/v1/models", "/console/events", "/metrics", "/openapi.json", "/admin/budgets"]
)
async def test_rebound_name(running: Running, path: str) -> None:
    """A page whose site points to 127.0.0.1 reads nothing and sends nothing."""
    assert_error(await call(running, "GET", path, host="evil.example"), 421, "host_not_allowed")
    assert_error(await call(running, host="evil.example:80"), 421, "host_not_allowed")


PREFLIGHT = {
    "origin": PAGE,
    "access_control_request_method": "POST",
    "access_control_request_headers": "authorization,content-type,x-stainless-lang",
}


async def test_configured_page(backend: Backend) -> None:
    """With `server.cors` the preflight needs no key, and the page may read responses, errors and streams."""
    server = {"cors": {"origins": [PAGE]}, "access_log": False}
    async with serving(
        configuration(backend.url, server=server, keys=[{"name": "k", "key": "k"}])
    ) as running:
        for path in (CHAT, "/v1/models"):
            preflight = await call(running, "OPTIONS", path, **PREFLIGHT)
            assert preflight.status == 200
            assert preflight.headers["access-control-allow-origin"] == PAGE
            assert "x-stainless-lang" in preflight.headers["access-control-allow-headers"]
            assert "POST" in preflight.headers["access-control-allow-methods"]

        typed = {"content_type": "application/json", "origin": PAGE}
        served = await call(running, authorization="Bearer k", **typed)
        refused = await call(running, **typed)
        foreign = await call(running, authorization="Bearer k", **typed | {"origin": EVIL})

    assert (served.status, refused.status) == (200, 401)
    for answer in (served, refused):
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["access-control-expose-headers"] == "*"
    assert "access-control-allow-origin" not in foreign.headers


async def test_no_page_is_configured(running: Running) -> None:
    """By default a preflight is answered without any permission, so the browser refuses the request."""
    for origin in (PAGE, EVIL):
        for path in (CHAT, "/v1/models", "/v1/route", "/admin/budgets", "/console"):
            preflight = await call(running, "OPTIONS", path, **PREFLIGHT | {"origin": origin})
            assert preflight.status == 204
            assert "OPTIONS" in preflight.headers["allow"]
            assert not [name for name in preflight.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("origins", ["[chat.example.com]", "['https://a/']", "https://a"])
def test_origin_is_checked(origins: str) -> None:
    """An origin is a scheme and a host; anything else would never match."""
    with pytest.raises(ConfigError, match=r"server\.cors\.origins"):
        parse(f"{SAVED}\nserver: {{cors: {{origins: {origins}}}}}", {})


class _Sources(HTMLParser):
    """Notes what a page loads, and the attributes that could run something."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loaded += [
            value or "" for name, value in attrs if name in ("src", "href") or name.startswith("on")
        ]


async def test_docs_page_is_our_own(running: Running) -> None:
    """/docs runs no script, loads nothing from elsewhere, and names every route."""
    answer = await call(running, "GET", "/docs")
    page = _Sources()
    page.feed(answer.body.decode())

    assert answer.headers["content-type"].startswith("text/html")
    assert "script" not in page.tags
    assert page.loaded == ["openapi.json"]
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "http" not in policy and "unsafe" not in policy
    described = (await call(running, "GET", "/openapi.json")).json["paths"]
    assert set(re.findall(r"<h3>[A-Z]+ ([^<]+)</h3>", answer.body.decode())) == set(described)


@pytest.mark.parametrize(
    "path", ["/docs", "/openapi.json", "/v1/models", "/console", "/healthz", "/nothing", CHAT]
)
async def test_own_pages_run_nothing(running: Running, path: str) -> None:
    """Whatever the gateway says itself has a policy, one type, and appears in no frame."""
    answer = await call(running, "GET", path)

    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_head_is_get_without_a_body(running: Running) -> None:
    """Monitors send HEAD: the headers are those of GET, a stream ends, and the connection can go on."""
    for path in ("/healthz", "/readyz", "/v1/models", "/docs", "/console/events", "/v1/models/"):
        async with running.http.head(running.url + path) as response:
            assert (response.status, await response.read()) == (200, b"")
    assert (await running.chat()).status == 200
