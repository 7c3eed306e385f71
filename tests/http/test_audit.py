"""The logs say who tried which key, from where, and who changed what."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.config.access import key_digest
from tests.fakes.backend import Backend
from tests.http.raw_http import ask
from tests.redis import RealRedis
from tests.serving import Running, configuration, serving

pytestmark = pytest.mark.usefixtures("patient_redis")

CHAT = "/v1/chat/completions"
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
ADMIN = {"authorization": "Bearer adm-s3cret"}
WINDOW = "/admin/budgets/day/*"


def settings(backend: Backend, redis: RealRedis, **changes: Any) -> dict[str, Any]:
    return configuration(
        backend.url,
        server={"access_log": True},
        redis={"url": redis.url},
        budgets=[{"name": "day", "window": "24h", "tokens": 1000}],
        keys=[{"name": "web", "key": "web-s3cret"}],
        admin={"key": "adm-s3cret"},
        console={"key": "con-s3cret"},
        **changes,
    )


@pytest.fixture
async def gateway(backend: Backend, redis_server: RealRedis) -> AsyncIterator[Running]:
    redis_server.ask("FLUSHALL")
    async with serving(settings(backend, redis_server)) as running:
        yield running


async def logged(running: Running, count: int, capture: pytest.CaptureFixture[bytes]) -> list[dict[str, Any]]:
    """The lines of the access log, once there are records of `count` requests."""
    await running.recorded(count)
    running.gateway.flush(10)
    written = capture.readouterr().out
    assert b"s3cret" not in written
    return [json.loads(line) for line in written.splitlines()]


REFUSED: list[tuple[str, str, dict[str, str], str | None]] = [
    ("POST", CHAT, {"x_api_key": "wr0ng"}, "wr0ng"),
    ("POST", CHAT, {"authorization": "Bearer wr0ng"}, "wr0ng"),
    ("POST", CHAT, {}, None),
    ("POST", "/v1/route", {"x_api_key": "wr0ng"}, "wr0ng"),
    ("GET", "/v1/models", {"x_api_key": "wr0ng"}, "wr0ng"),
    ("GET", "/v1/models/tiny", {"x_api_key": "wr0ng"}, "wr0ng"),
    ("GET", "/console/events", {"authorization": "Bearer wr0ng"}, "wr0ng"),
    ("GET", "/admin/budgets", {"authorization": "Bearer wr0ng"}, "wr0ng"),
    ("PUT", WINDOW, {"authorization": "Bearer wr0ng"}, "wr0ng"),
    ("POST", f"{WINDOW}/reset", {"authorization": "Bearer web-s3cret"}, "web-s3cret"),
    ("DELETE", WINDOW, {}, None),
]


async def test_refused_keys(gateway: Running, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Each refusal has the peer and the fingerprint of the key that was tried, and never the key."""
    for method, path, headers, _ in REFUSED:
        body = BODY if method in ("POST", "PUT") else None
        assert (await ask(gateway.http, gateway.url, path, body, method=method, **headers)).status == 401

    lines = await logged(gateway, len(REFUSED), capfdbinary)

    tried = [None if secret is None else key_digest(secret)[:8] for *_, secret in REFUSED]
    assert [line.get("tried_key") for line in lines] == tried
    assert {(line["peer"], line["key"], line["status"]) for line in lines} == {("127.0.0.1", None, 401)}
    assert "wr0ng" not in str(lines)
    assert not any("change" in line for line in lines)


async def test_every_route_notes_the_key(gateway: Running, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Also the model list and the dry run have the name of the key in their lines."""
    for method, path in (("GET", "/v1/models"), ("GET", "/v1/models/tiny"), ("POST", "/v1/route")):
        body = BODY if method == "POST" else None
        await ask(gateway.http, gateway.url, path, body, method=method, x_api_key="web-s3cret")

    lines = await logged(gateway, 3, capfdbinary)

    assert [(line["key"], line["peer"]) for line in lines] == [("web", "127.0.0.1")] * 3


async def test_changes_of_a_budget(
    gateway: Running, capfdbinary: pytest.CaptureFixture[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """An admin's change leaves who, what, before and after, in the access log and on standard error."""
    caplog.set_level("INFO", "thinkmeter.audit")
    steps: list[tuple[str, str, dict[str, int] | None]] = [
        ("PUT", WINDOW, {"tokens": 999_999}),
        ("POST", f"{WINDOW}/top-up", {"tokens": 5}),
        ("DELETE", WINDOW, None),
        ("POST", f"{WINDOW}/reset", None),
    ]
    for method, path, body in steps:
        answer = await ask(gateway.http, gateway.url, path, body, method=method, **ADMIN)
        assert answer.status == 200

    lines = await logged(gateway, len(steps), capfdbinary)

    changes = [line["change"] for line in lines]
    assert [(line["key"], line["peer"], line["status"]) for line in lines] == [
        ("admin", "127.0.0.1", 200)
    ] * 4
    assert {(change["budget"], change["holder"]) for change in changes} == {("day", "*")}
    assert [(c["action"], c["tokens"], c["before"]["limit"], c["after"]["limit"]) for c in changes] == [
        ("set_limit", 999_999, 1000, 999_999),
        ("top_up", 5, 999_999, 1_000_004),
        ("restore_limit", None, 1_000_004, 1005),
        ("reset", None, 1005, 1000),
    ]
    audit = [record.getMessage() for record in caplog.records if record.name == "thinkmeter.audit"]
    assert len(audit) == 4
    assert "admin at 127.0.0.1" in audit[0] and "999999" in audit[0]


async def test_change_that_fails_is_noted(
    backend: Backend, redis_server: RealRedis, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """If Redis is away, the line says what was tried and that nothing is known of the result."""
    away = settings(backend, redis_server) | {"redis": {"url": "redis://127.0.0.1:1"}}
    async with serving(away) as running:
        answer = await ask(running.http, running.url, WINDOW, {"tokens": 7}, method="PUT", **ADMIN)
        assert answer.status == 503
        (line,) = await logged(running, 1, capfdbinary)

    assert line["change"] == {
        "action": "set_limit",
        "budget": "day",
        "holder": "*",
        "tokens": 7,
        "before": None,
        "after": None,
    }


@pytest.mark.parametrize(("secret", "who"), [("con-s3cret", "console"), ("adm-s3cret", "admin")])
async def test_login_to_the_console(
    gateway: Running, caplog: pytest.LogCaptureFixture, secret: str, who: str
) -> None:
    """Opening the console is noted at once, with the address and whose key it was."""
    caplog.set_level("INFO", "thinkmeter.audit")
    headers = {"Authorization": f"Bearer {secret}"}
    async with gateway.http.get(gateway.url + "/console/events", headers=headers) as response:
        assert response.status == 200
        assert f"127.0.0.1 opened the console with the key of the {who}" in caplog.text
    assert secret not in caplog.text
