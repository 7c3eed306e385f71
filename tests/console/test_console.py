"""The console's page and stream over HTTP: access, contents, and what they must not contain."""

from __future__ import annotations

import asyncio
import json
import re
from importlib.resources import files
from typing import Any

import pytest

from gateway.console.state import KEPT_DECISIONS, Console, Sums
from gateway.errors import BackendError
from gateway.openai_api.usage import TokenUsage
from gateway.telemetry.record import Record
from tests.console.stream import next_of, watching
from tests.fakes.backend import Backend
from tests.making import decision
from tests.serving import Running, configuration, serving

SECRET = "the-word-nobody-may-read"
KEYS = [{"name": "web", "key": "web-secret"}]
ASSETS = sorted(entry.name for entry in files("gateway.console").joinpath("web").iterdir())


async def status(running: Running, path: str, key: str | None = None) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with running.http.get(running.url + path, headers=headers) as response:
        return response.status


# --- who may see it ---------------------------------------------------------------------------------


async def test_open_where_no_keys_are(running: Running) -> None:
    """Without keys the console is served, with and without a trailing slash."""
    assert await status(running, "/console") == 200
    assert await status(running, "/console/") == 200
    async with watching(running) as events:
        assert (await next_of(events, "snapshot"))["keys"] is False


@pytest.mark.parametrize("path", ["/console", "/console/app.js", "/console/events"])
async def test_off_where_keys_are(backend: Backend, path: str) -> None:
    """With API keys but no key for the console, it is not served, not even with an API key."""
    async with serving(configuration(backend.url, keys=KEYS)) as running:
        assert await status(running, path) == 404
        assert await status(running, path, "web-secret") == 404


@pytest.mark.parametrize("section", ["console", "admin"])
async def test_its_own_key_or_the_admins_opens_the_stream(backend: Backend, section: str) -> None:
    """Either key turns the console on. The page has no data and needs no key; the stream needs one."""
    settings = configuration(backend.url, keys=KEYS) | {section: {"key": "watch-secret"}}
    async with serving(settings) as running:
        assert await status(running, "/console") == 200
        assert await status(running, "/console/events") == 401
        assert await status(running, "/console/events", "web-secret") == 401
        async with watching(running, "watch-secret") as events:
            assert (await next_of(events, "snapshot"))["keys"] is True
        assert await status(running, "/v1/models", "watch-secret") == 401


async def test_the_admin_may_watch_beside_others(backend: Backend) -> None:
    """If the console and the admin have a key each, both open the stream."""
    settings = configuration(backend.url, keys=KEYS, admin={"key": "admin-secret"})
    async with serving(settings | {"console": {"key": "watch-secret"}}) as running:
        for key in ("admin-secret", "watch-secret"):
            async with watching(running, key) as events:
                await next_of(events, "snapshot")


async def test_an_admin_locks_nobody_out(backend: Backend) -> None:
    """Without API keys the stream needs no key either, even if there is an admin key."""
    settings = configuration(backend.url, admin={"key": "admin-secret"})
    async with serving(settings) as running, watching(running) as events:
        assert (await next_of(events, "snapshot"))["keys"] is False


@pytest.mark.parametrize(("enabled", "keys", "expected"), [(False, [], 404), (True, KEYS, 200)])
async def test_the_switch_outranks_the_default(
    backend: Backend, enabled: bool, keys: list[dict[str, str]], expected: int
) -> None:
    """If `enabled` is set, it decides."""
    async with serving(configuration(backend.url, keys=keys, console={"enabled": enabled})) as running:
        assert await status(running, "/console") == expected


# --- the page ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ASSETS)
async def test_files_come_from_here_alone(running: Running, name: str) -> None:
    """Every file is served with its type and the security policy, and refers to no other server."""
    async with running.http.get(f"{running.url}/console/{name}") as response:
        text = await response.text()
        policy = response.headers["Content-Security-Policy"]
    elsewhere = re.findall(r"https?://[^\s\"']+", text)

    assert response.status == 200
    assert response.content_type != "application/octet-stream"
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert [url for url in elsewhere if url != "http://www.w3.org/2000/svg"] == []
    assert not re.search(r"\son[a-z]+=\"|\sstyle=\"", text) or not name.endswith(".html")


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fconfig.py", "%2e%2e%2fconfig.py", ".hidden"])
async def test_no_other_file_is_served(running: Running, name: str) -> None:
    """Only files in the console's folder are served."""
    assert await status(running, f"/console/{name}") == 404


# --- the stream -------------------------------------------------------------------------------------


async def test_a_decision_is_sent_and_explained(running: Running) -> None:
    """A request appears with its tier, tokens and reason, and in the sums."""
    async with watching(running) as events:
        first = await next_of(events, "snapshot")
        response = await running.chat("What is 2 + 2?")
        [entry] = await next_of(events, "decisions")
        sums = (await next_of(events, "snapshot"))["sums"]
    tier = response.headers["x-thinkmeter-tier"]

    assert first["models"] == {"tiny": {t: first["models"]["tiny"][t] for t in entry["decision"]["correct"]}}
    assert first["sums"]["requests"] == 0
    assert entry["decision"]["id"] == response.headers["x-thinkmeter-decision-id"]
    assert entry["decision"]["tier"] == tier
    assert max(entry["value"], key=entry["value"].get) == tier
    assert entry["explanation"]["because"] == f"{tier} is worth most at this price."
    assert (entry["status"], entry["error"], entry["backend"]) == (200, None, "a")
    assert (sums["requests"], sums["tiers"], sums["tokens"]) == (1, {tier: 1}, entry["completion_tokens"])


async def test_a_new_watcher_gets_earlier_decisions(running: Running) -> None:
    """A newly opened stream begins with the earlier requests, oldest first."""
    ids = [(await running.chat()).headers["x-thinkmeter-decision-id"] for _ in range(3)]
    async with watching(running) as events:
        snapshot = await next_of(events, "snapshot")
        entries = await next_of(events, "decisions")

    assert [entry["decision"]["id"] for entry in entries] == ids
    assert sum(second["sums"]["requests"] for second in snapshot["seconds"]) == 3


async def test_no_prompt_is_sent(running: Running) -> None:
    """The stream has no prompts, no answers, and no error texts that may quote them."""
    await running.chat(SECRET)
    await running.chat(SECRET, temperature="hot", max_tokens="many")
    async with watching(running) as events:
        told = json.dumps([await next_of(events, "snapshot"), await next_of(events, "decisions")])

    assert SECRET not in told


async def test_backends_are_sent(backend: Backend) -> None:
    """The stream says which replicas are healthy."""
    async with (
        serving(configuration(backend.url, "http://127.0.0.1:9")) as running,
        watching(running) as events,
    ):
        backends = (await next_of(events, "snapshot"))["backends"]

    assert [(b["name"], b["healthy"], b["breaker"]) for b in backends] == [
        ("a", True, "closed"),
        ("b", False, "closed"),
    ]


async def test_the_stream_ends_when_the_gateway_drains(running: Running) -> None:
    """An open stream does not delay the shutdown."""
    async with watching(running) as events:
        await next_of(events, "snapshot")
        running.gateway.draining = True
        assert [name async for name, _ in events if name not in ("snapshot", "decisions")] == []


# --- the sums ---------------------------------------------------------------------------------------


def record(
    tier: str = "short", eligible: tuple[str, ...] = ("short", "long"), used: int | None = 30, **rest: Any
) -> Record:
    made = decision(tier, {"short": 0.5, "long": 0.75}, {"short": 20.0, "long": 100.0}, eligible=eligible)
    return Record("id", decision=made, usage=TokenUsage(completion=used), **rest)


def test_estimates_are_against_the_longest_tier_allowed() -> None:
    """30 tokens used, 100 expected of the longest tier: 70 saved, for 0.25 right answers fewer."""
    sums = Sums()
    sums.add(record())

    assert (sums.chosen, sums.comparable, sums.saved) == (1, 30, 70.0)
    assert (sums.right, sums.right_longest) == (0.5, 0.75)


def test_savings_are_signed() -> None:
    """More tokens than expected of the longest tier are negative savings."""
    sums = Sums()
    sums.add(record(tier="long", used=160))

    assert sums.saved == -60


@pytest.mark.parametrize(
    "without",
    [record(eligible=("short",)), record(used=None), record(error=BackendError("x"))],
    ids=["no choice", "tokens unknown", "failed"],
)
def test_what_cannot_be_compared_is_left_out(without: Record) -> None:
    """Requests without a choice of tier, without usage or with an error count, but save nothing."""
    sums = Sums()
    sums.add(without)

    assert (sums.requests, sums.chosen, sums.saved) == (1, 0, 0.0)


def test_memory_is_bounded(running: Running) -> None:
    """Only the last decisions are kept, and a slow watcher misses the older ones."""
    console = Console(lambda: running.gateway.snapshot)
    for _ in range(KEPT_DECISIONS + 50):
        console.remember(record())

    assert len(console.decisions(seen=0)) == KEPT_DECISIONS
    assert len(console.decisions(seen=KEPT_DECISIONS + 40)) == 10
    assert console.decisions(seen=KEPT_DECISIONS + 50) == []


async def test_pages_share_their_events(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pages are open, the state is put into an event once per second."""
    console, made = running.gateway.console, []
    snapshot = console.snapshot

    def counted(since: int = 0) -> dict[str, Any]:
        if since:  # the first event of a page has all seconds, and is its own
            made.append(since)
        return snapshot(since)

    monkeypatch.setattr(console, "snapshot", counted)

    async def watch() -> None:
        async with watching(running) as events:
            for _ in range(2):
                await next_of(events, "snapshot")

    await asyncio.gather(*(watch() for _ in range(8)))

    assert made
    assert len(made) == len(set(made))
