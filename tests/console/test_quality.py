"""The console's section about the quality of answers: who may read it, and what it shows."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import open_store
from gateway.evidence.heads.archive import add_head, judge_head, promote_head
from gateway.evidence.rows import Row
from router_model.artifact import pack_artifact
from router_model.head import ARTIFACTS, load_named
from tests.console.test_browser import CONTRAST, opened
from tests.evidence import made
from tests.evidence.made import decision, eventually_async, shadow, store_rows
from tests.fakes.backend import Backend
from tests.serving import Running, configuration, serving

RUNGS = [(0, "direct", 0.84, 40), (1, "short", 0.8, 180), (3, "medium", 0.76, 420), (5, "long", 0.85, 900)]
KEYS = [{"name": "web", "key": "web-secret"}]


def rows(number: int = 900) -> list[Row]:
    """Decisions of both arms of the last week, a third judged, and some shadow pairs."""
    rng, now, found = random.Random(8), time.time(), list[Row]()
    for i in range(number):
        held = rng.random() < 0.15
        rung, tier, right, tokens = RUNGS[3] if held else rng.choice(RUNGS[:3] + RUNGS[1:3])
        expected = min(max(right + rng.triangular(-0.5, 0.2), 0.02), 0.99)
        place = {"rung": rung, "tier": tier, "correct": expected, "arm": "holdout" if held else "adaptive"}
        at = now - rng.uniform(60, 6 * 86_400)
        used = round(tokens * rng.uniform(0.6, 1.5))
        found.append(decision(i, at=at, completion_tokens=used, **place))
        if rng.random() < 0.4:
            source = rng.choice(["client", "client", "playground", "unit-tests"])
            found.append(
                made.feedback(i, at=at + 30, source=source, score=float(rng.random() < expected - 0.03))
            )
        if i % 30 == 0 and not held:
            better = rng.choice([(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (None, None)])
            scores = {"served_score": better[0], "shadow_score": better[1]}
            found.append(shadow(i, at=at, served_rung=rung, shadow_rung=5, flipped=i % 90 == 0, **scores))
    return found


def judged(backend: Backend, folder: Path, kept: list[Row]) -> dict[str, Any]:
    """A gateway whose store has these rows."""
    evidence = {"file": str(folder / "evidence.db")}
    store_rows(EvidenceSettings.model_validate(evidence), kept)
    return configuration(backend.url, evidence=evidence)


async def reachable(running: Running) -> None:
    """The store is open."""
    assert running.gateway.evidence
    writer = running.gateway.evidence.writer
    await eventually_async(lambda: writer.engine)


@pytest.mark.parametrize("key", [None, "web-secret", "watch-secret"])
async def test_it_needs_the_key_of_the_console(backend: Backend, key: str | None) -> None:
    """The key of a client does not open it, as it would show what others said."""
    async with serving(configuration(backend.url, keys=KEYS, console={"key": "watch-secret"})) as running:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with running.http.get(f"{running.url}/console/quality", headers=headers) as response:
            assert response.status == (200 if key == "watch-secret" else 401)
            if key == "watch-secret":
                assert await response.json() == {"state": "off"}
                assert response.headers["cache-control"] == "no-store"


async def test_comments_and_prompts_are_not_sent(backend: Backend, tmp_path: Path) -> None:
    """Neither what a client wrote, nor who it is, is shown."""
    at = time.time()
    kept = [decision(0, at=at, prompt="a-prompt"), made.feedback(0, at=at, comment="a-comment")]
    async with serving(judged(backend, tmp_path, list(kept))) as running:
        await reachable(running)
        async with running.http.get(f"{running.url}/console/quality") as response:
            text = await response.text()

    assert '"source":"client"' in text
    assert not [word for word in ("a-prompt", "a-comment", "alice", "dec-0") if word in text]


async def test_it_says_what_to_configure(browser: Any, running: Running) -> None:
    """Without a store, the section says how to have one."""
    async with opened(browser, running.url) as page:
        await page.wait_for_selector("#quality-body[data-state=off]")
        assert "evidence: {}" in await page.locator("#quality-body").inner_text()


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ([], "No request of the last 30 days"),
        ([decision(0, at=time.time())], "Nobody has judged an answer yet"),
    ],
)
async def test_it_says_what_is_missing(
    browser: Any, backend: Backend, tmp_path: Path, kept: list[Row], words: str
) -> None:
    """With a store, it says what is missing in it, and shows the store."""
    async with serving(judged(backend, tmp_path, kept)) as running:
        await reachable(running)
        async with opened(browser, running.url) as page:
            await page.wait_for_selector("#quality-body[data-state=ready]")
            text = await page.locator("#quality-body").inner_text()

    assert words in text
    assert "not kept" in text


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_quality_is_shown(
    browser: Any, backend: Backend, tmp_path: Path, width: int, scheme: str
) -> None:
    """Shares with intervals, the arms, calibration, pairs, feedback; it fits a phone, in both themes."""
    async with serving(judged(backend, tmp_path, rows())) as running:
        await reachable(running)
        await running.chat()
        async with opened(browser, running.url, width, color_scheme=scheme) as page:
            await page.wait_for_selector("#quality .calibration")
            await page.wait_for_selector("#why svg")
            text = await page.locator("#quality-body").inner_text()
            bars = await page.locator("#quality .interval").count()
            label = await page.locator("#quality .calibration").get_attribute("aria-label")
            sizes = await page.evaluate("() => [document.documentElement.scrollWidth, window.innerWidth]")
            more = '"#quality .hint", "#quality .small", "#quality th", "#quality .note"'
            contrast = await page.evaluate(CONTRAST.replace('".hint"', more))
            (tmp_path / "quality.png").write_bytes(await page.locator("#quality").screenshot())

    assert bars == (4 if width > 620 else bars)
    assert "hold-out" in text
    assert "more judged answers held out" in text
    assert "Right answers: " in label
    assert "Shadow pairs" in text
    assert "unit-tests" in text or width < 620
    assert sizes[0] <= sizes[1]
    assert min(contrast.values()) >= 4.5, contrast


async def test_heads_are_shown(browser: Any, backend: Backend, tmp_path: Path) -> None:
    """Which heads there are, which one decides, and who promoted it and why."""
    settings = judged(backend, tmp_path, [decision(0, at=time.time())])
    store = open_store(EvidenceSettings(file=settings["evidence"]["file"]))
    version = add_head(store, pack_artifact(ARTIFACTS / "tiny"), load_named("tiny"))
    judge_head(store, version, {"passes": False, "reasons": ["worse in value"]})
    promote_head(store, version, by="alice", why="a trial")
    store.dispose()
    async with serving(settings) as running:
        await reachable(running)
        async with opened(browser, running.url, 1440) as page:
            await page.wait_for_selector("#quality-body[data-state=ready]")
            text = await page.locator("#quality-body").inner_text()
            await page.set_viewport_size({"width": 390, "height": 800})
            sizes = await page.evaluate("() => [document.documentElement.scrollWidth, window.innerWidth]")

    assert all(word in text for word in (version, "decides", "refused", "promoted", "a trial"))
    assert sizes[0] <= sizes[1]
