"""The console in a real browser, with the real gateway and the real tiny model."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from examples.tiny_reasoner.engine import Engine
from examples.tiny_reasoner.serve import WEIGHTS, create_app
from tests.evidence.recording import record_decisions
from tests.fakes.backend import Backend
from tests.serving import Running, configuration, serving

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:playwright.*")


@asynccontextmanager
async def opened(browser: Any, url: str, width: int = 1440, **options: Any) -> AsyncIterator[Any]:
    """The console's page once it is live. In the end, the browser must have reported no errors."""
    complaints: list[str] = []
    context = await browser.new_context(viewport={"width": width, "height": 900}, **options)
    page = await context.new_page()
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    page.on("request", lambda r: None if r.url.startswith((url, "data:")) else complaints.append(r.url))
    try:
        await page.goto(f"{url}/console")
        await page.wait_for_selector("#state[data-word=live]")
        await page.wait_for_selector("#chart svg")
        yield page
        assert complaints == []
    finally:
        await context.close()  # before the gateway stops, which would wait for the stream


@pytest.fixture
async def tiny(free_port: int) -> AsyncIterator[str]:
    """The tiny reasoner on a port."""
    config = uvicorn.Config(
        create_app(Engine(WEIGHTS, slots=8), "tiny"), port=free_port, log_level="error", ws="none"
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{free_port}"
    server.should_exit = True
    await task


async def test_readings_follow_the_requests(browser: Any, running: Running) -> None:
    """Requests appear in the chart, the sums, the list and the explanation without a page reload."""
    async with opened(browser, running.url) as page:
        assert await page.locator("#chart svg").get_attribute("data-total") == "0"
        assert await page.locator("#log tr").count() == 0
        for question in ("hello", "Prove that the sum of the first n odd numbers is n squared."):
            await running.chat(question)
        await page.wait_for_selector("#chart svg[data-total='2']")
        await page.wait_for_selector("#log tr:nth-child(2)")
        tiers = await page.locator("#log .chip").all_inner_texts()
        label = await page.locator("#why svg").get_attribute("aria-label")

        assert await page.locator("#chart rect").count() > 0
        assert tiers == [r.decision.tier for r in reversed(running.records) if r.decision]
        assert "The price was 0.02" in label
        assert "2 in all" in await page.locator("#readouts").inner_text()


async def test_playground_answers_at_every_tier(browser: Any, tiny: str) -> None:
    """One question to the real model: five answers with their reasoning, and a link to the decision."""
    tiers = {"direct": 0, "short": 24, "medium": 96, "long": 320}
    model = {"tiers": {name: {"thinking": length, "answer": 16} for name, length in tiers.items()}}
    async with serving(configuration(tiny, model=model)) as running, opened(browser, running.url) as page:
        await page.fill("#question", "What is (3+4)*5-9?")
        await page.click("text=Ask at every tier")
        await page.wait_for_selector(".answer-card")
        await page.wait_for_selector("#stop", state="hidden")
        cards = await page.locator(".answer-card").all()
        answers = [await card.locator(".answer").inner_text() for card in cards]
        thoughts = [await card.locator(".thought").inner_text() for card in cards]
        await page.click("text=why?")

        assert len(cards) == 1 + len(tiers)
        assert all(answer.strip().lstrip("-").isdigit() for answer in answers)
        assert thoughts[1] == ""
        assert await page.locator(".thought[tabindex='0'][aria-label='Thought at long']").count() == 1
        assert all(thought.strip() for thought in thoughts[2:])
        assert "tokens" in await cards[-1].inner_text()
        decisions = [record.decision for record in running.records if record.decision]
        [adaptive] = [decision.id for decision in decisions if decision.requested == "adaptive"]
        await page.wait_for_selector(f"#why[data-id='{adaptive}']")


async def test_thumbs_send_feedback(browser: Any, backend: Backend, tmp_path: Path) -> None:
    """With a store, each answer can be judged, and judged otherwise; without one there are no thumbs."""
    file = tmp_path / "evidence.db"
    settings = configuration(backend.url, evidence={"file": str(file)})
    async with serving(settings) as running, opened(browser, running.url) as page:
        record_decisions(running)
        await asked(page)
        assert await page.locator(".thumbs").count() == 5
        await page.click("[aria-label='The answer at short is wrong']")
        await page.wait_for_selector(".thumbs :text('noted as wrong')")
        await page.click("[aria-label='The answer at short is right']")
        await page.wait_for_selector(".thumbs :text('noted as right')")
        pressed = page.locator(".thumbs button[aria-pressed=true]")
        assert await pressed.get_attribute("aria-label") == "The answer at short is right"
        [judged] = [r.decision.id for r in running.records if r.decision and r.decision.requested == "short"]
    async with serving(configuration(backend.url)) as running, opened(browser, running.url) as page:
        await asked(page)
        assert await page.locator(".thumbs").count() == 0

    with sqlite3.connect(file) as connection:
        found = connection.execute("SELECT decision, source, score FROM feedback").fetchall()
    assert found == [(judged, "playground", 1)]


async def asked(page: Any) -> None:
    """Ask at every tier, and wait for the answers."""
    await page.click("text=Ask at every tier")
    await page.wait_for_selector(".answer-card")
    await page.wait_for_selector("#stop", state="hidden")


async def test_a_decision_is_chosen_with_the_keyboard(browser: Any, running: Running) -> None:
    """The keyboard can select a decision, and its explanation stays while new decisions arrive."""
    await running.chat("first")
    await running.chat("second")
    async with opened(browser, running.url) as page:
        await page.wait_for_selector("#log tr:nth-child(2)")
        await page.focus("#log tr:nth-child(2) button")
        await page.keyboard.press("Enter")
        first = running.records[0].decision
        assert first
        assert await page.locator("#why").get_attribute("data-id") == first.id
        await running.chat("third")
        await page.wait_for_selector("#log tr:nth-child(3)")

        assert await page.locator("#why").get_attribute("data-id") == first.id
        assert await page.evaluate("() => document.activeElement.dataset.id") == first.id


@pytest.mark.parametrize("width", [390, 768, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_the_screen(browser: Any, running: Running, width: int, scheme: str) -> None:
    """At each width and in both themes, nothing overflows sideways and text has enough contrast."""
    await running.chat()
    async with opened(browser, running.url, width, color_scheme=scheme) as page:
        await page.wait_for_selector("#why svg")
        await page.evaluate(
            "() => document.querySelector('#model').prepend(new Option('long-name-'.repeat(12)))"
        )
        sizes = await page.evaluate("() => [document.documentElement.scrollWidth, window.innerWidth]")
        contrast = await page.evaluate(CONTRAST)

        assert sizes[0] <= sizes[1]
        assert min(contrast.values()) >= 4.5, contrast


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (colour) => rgb(colour).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const back = (element) => {
    const own = getComputedStyle(element).backgroundColor;
    return /rgba\\(.*, 0\\)|transparent/.test(own) ? back(element.parentElement) : own;
  };
  const found = {};
  for (const selector of ["body", ".note", ".hint", "#log .chip", ".primary", ".log th", ".ask label",
      "summary", "#why .small"]) {
    const element = document.querySelector(selector);
    found[selector] = ratio(getComputedStyle(element).color, back(element));
  }
  return found;
}"""


async def test_everything_has_a_name(browser: Any, running: Running) -> None:
    """Each control and drawing has an accessible name, IDs are unique, and the page has its landmarks."""
    await running.chat()
    async with opened(browser, running.url) as page:
        await page.wait_for_selector("#why svg")
        nameless = await page.evaluate(
            """() => [...document.querySelectorAll("button, input, select, textarea, [role=img]")]
              .filter((e) => !(e.textContent.trim() || e.labels?.length || e.ariaLabel))
              .map((e) => e.outerHTML.slice(0, 80))"""
        )
        ids = await page.evaluate("() => [...document.querySelectorAll('[id]')].map((e) => e.id)")

        assert nameless == []
        assert len(ids) == len(set(ids))
        for role in ("banner", "main", "contentinfo", "navigation"):
            assert await page.get_by_role(role).count() == 1, role
        assert await page.get_by_role("heading", level=1).count() == 1


async def test_a_key_is_asked_for_and_used(browser: Any, backend: Backend) -> None:
    """If the console has a key, the page asks for it and then goes live."""
    keys = [{"name": "web", "key": "web-secret"}]
    settings = configuration(backend.url, keys=keys, console={"key": "watch-secret"})
    async with serving(settings) as running:
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(f"{running.url}/console")
        await page.wait_for_selector("dialog[open]")
        await page.fill("#console-key", "watch-secret")
        await page.fill("#api-key", "web-secret")
        await page.click("text=Use these")
        await page.wait_for_selector("#state[data-word=live]")
        await page.wait_for_selector("#model option", state="attached")
        await page.click("text=Ask at every tier")
        await page.wait_for_selector(".answer-card")
        await page.wait_for_selector("#stop", state="hidden")

        assert {record.key for record in running.records if record.decision} == {"web"}
        assert {record.status for record in running.records if record.decision} == {200}
        await context.close()


async def test_it_comes_back_after_a_restart(browser: Any, backend: Backend, free_port: int) -> None:
    """If the gateway is gone, the page says so, and goes live again once it is back."""
    settings = configuration(backend.url)
    context = await browser.new_context()
    page = await context.new_page()
    async with serving(settings) as running:
        await page.goto(f"{running.url}/console")
        await page.wait_for_selector("#state[data-word=live]")
        running.gateway.draining = True
        await page.wait_for_selector("#state[data-word=waiting]")
        running.gateway.draining = False
        await page.wait_for_selector("#state[data-word=live]")
    await context.close()
