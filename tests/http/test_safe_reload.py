"""What a reload must not do: open the gateway to others. And what it says that it did."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gateway.config.loader import digest_of
from tests.fakes.backend import Backend
from tests.http.raw_http import ask, assert_error
from tests.http.test_reload import BODY, CHAT, SECONDS, write
from tests.serving import configuration, serving


async def signalled_until(ready: Callable[[], bool]) -> None:
    """Send SIGHUP to the gateway in this process until it is ready."""
    async with asyncio.timeout(SECONDS):
        while not ready():
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.05)


HEAD, TAIL = "keys:\n", "- {name: web, key: sk-web}\nbudgets:\n- {name: b, window: 1m, tokens: 1000}\n"


@pytest.mark.parametrize(
    "text",
    [HEAD, "", "keys: []\n", HEAD + "- {name: web, key: sk-web}\n", "console: {enabled: true}\n"],
    ids=["half a file", "no keys", "empty keys", "no budgets", "console"],
)
async def test_reload_cannot_open_the_gateway(
    backend: Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """A file without its keys or budgets is refused, with the reason, even if SIGHUP asks for it."""
    path = tmp_path / "gateway.yaml"
    beginning = yaml.safe_dump(configuration(backend.url, redis={"directory": str(tmp_path)}))
    path.write_text(beginning + HEAD + TAIL)
    async with serving(yaml.safe_load(path.read_text()), path=path) as running:
        path.write_text(beginning + text)
        await signalled_until(lambda: "configuration refused" in caplog.text)

        assert (await running.chat()).status == 401
        events = await ask(running.http, running.url, "/console/events", method="GET")
        assert events.status in (401, 404)
        answer = await ask(running.http, running.url, CHAT, BODY, x_api_key="sk-web")
        assert answer.headers["x-thinkmeter-budget"] == "b"
    assert "configuration refused, the old one stays" in caplog.text
    assert "restart" in caplog.text or "budgets: []" in caplog.text


async def test_reload_takes_no_known_key(
    backend: Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A gateway that others can reach refuses a file with a key of the examples."""
    path = tmp_path / "gateway.yaml"
    settings = configuration(backend.url, server={"host": "0.0.0.0", "access_log": False})
    write(tmp_path, settings)
    async with serving(settings, path=path) as running:
        path.write_text(yaml.safe_dump(settings | {"admin": {"key": "change-me-admin"}}))
        await signalled_until(lambda: "configuration refused" in caplog.text)

        admin = {"authorization": "Bearer change-me-admin"}
        answer = await ask(running.http, running.url, "/admin/budgets", method="GET", **admin)
        assert_error(answer, 401, "invalid_api_key")
    assert "admin: everybody knows this key" in caplog.text


async def test_reload_says_what_it_changes(
    backend: Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names what was added and removed, and both digests; an open gateway warns again."""
    caplog.set_level("INFO", "thinkmeter")
    path = tmp_path / "gateway.yaml"
    write(tmp_path, configuration(backend.url))
    old = digest_of(path.read_bytes())
    async with serving(yaml.safe_load(path.read_text()), path=path) as running:
        path.write_text(yaml.safe_dump(configuration(backend.url, rules=[{"name": "all", "tier": "short"}])))
        await signalled_until(lambda: "configuration reloaded" in caplog.text)
        assert (await running.chat()).headers["x-thinkmeter-tier"] == "short"

    new = digest_of(path.read_bytes())
    assert f"configuration reloaded: rules (+all) ({old} → {new})" in caplog.text
    assert caplog.text.count("no API keys are configured") == 2
