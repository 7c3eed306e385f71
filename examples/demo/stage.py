"""Starts all servers, runs the stream of questions, prints the result, and keeps serving."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from examples import servers
from examples.demo.summary import paragraph, surge_paragraph
from examples.demo.traffic import Asked, Plan, Traffic, arrivals, fresh_questions, watch
from examples.demo.view import View

WINDOW = 30  # seconds; short enough to see tokens leave the window
TOKENS_PER_QUESTION = 45  # granted by the budget at the steady rate; the tiers use about 3, 28, 65 and 95
PRICE = 6  # minimum price, at which a question uses about 38 tokens, so that the first window is not wasted

ABOUT = """\
A reasoning model of 1.4 million parameters answers questions about numbers, on this machine's CPU. For each
question, the gateway in front of it decides how long the model thinks ([bold]direct[/]: not at all,
[bold]short[/], [bold]medium[/] or [bold]long[/]). It uses P(right), the probability of a right answer that
its head predicts for each tier, and keeps all answers of any {window} seconds within {tokens:,} tokens. For
the score, the demo also asks the model every question at every tier."""


def settings(backend: str, folder: Path, rate: float) -> dict[str, Any]:
    """The gateway's configuration: the trained head, and one budget over a rolling window."""
    budget = {"name": "everyone", "window": f"{WINDOW}s", "tokens": cap(rate), "reserve": "p95"}
    return servers.settings(
        backend,
        price=PRICE,
        budgets=[budget],
        reservations={"shortest_answer": 8},
        redis={"directory": str(folder / "redis")},
    )


def cap(rate: float) -> int:
    """Token limit of the budget's window."""
    return math.ceil(rate * WINDOW * TOKENS_PER_QUESTION)


async def run(traffic: Traffic, view: View, plan: Plan, seed: int) -> None:
    """Ask the stream of questions and draw the screen meanwhile."""
    loop = asyncio.get_running_loop()
    questions = fresh_questions(plan.count, seed)
    begun = loop.time()

    async def draw() -> None:
        while True:
            view.draw(traffic.asked, loop.time() - begun)
            await asyncio.sleep(0.5)

    drawing = asyncio.create_task(draw())
    try:
        await traffic.run(questions, arrivals(plan, seed), stop=plan.seconds + 30)
        for _ in range(50):  # at most five seconds
            if view.complete:
                break
            await asyncio.sleep(0.1)
    finally:
        drawing.cancel()
        await asyncio.gather(drawing, return_exceptions=True)
        await traffic.close()


def tell(view: View, asked: list[Asked], plan: Plan) -> None:
    """Print the last screen, and the result in words."""
    view.finish(asked)
    view.out.print(paragraph(asked), highlight=False)
    if plan.surge:
        view.out.print("\n" + surge_paragraph(asked, view.prices, plan), highlight=False)


def serve_on(url: str, view: View) -> None:
    """Keep serving until Ctrl-C, and print the decisions of the user's own requests."""
    messages = '[{"role": "user", "content": "What is (3+4)*5-9?"}]'
    body = f'{{"model": "tiny", "temperature": 0, "messages": {messages}}}'
    view.out.print(
        f"\n[bold]Still serving[/] until Ctrl-C. Ask your own questions in {url}/console, or run:\n"
    )
    curl = f"curl -si {url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'"
    view.out.print(curl, markup=False, highlight=False, soft_wrap=True)
    view.out.print()
    view.follow()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(asyncio.sleep(float("inf")))


def show(asked_for: argparse.Namespace) -> None:
    """Start everything, ask, show the result, and keep serving if a user is there.

    Ctrl-C during the questions shows the result so far.
    """
    out = Console(width=None if sys.stdout.isatty() else 120)
    plan = Plan(asked_for.rate, asked_for.seconds, asked_for.traffic == "surge")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as running:
        folder = Path(name)
        out.print(ABOUT.replace("\n", " ").format(window=WINDOW, tokens=cap(plan.rate)), highlight=False)
        with out.status("Starting the model, the gateway and its Redis …"):
            backend = running.enter_context(servers.engine(folder))
            config = settings(backend, folder, plan.rate)
            url = running.enter_context(servers.gateway(folder, config, asked_for.port))
        out.print(f"\nIn the browser: {url}/console\n", highlight=False)
        view = View(out, plan)
        watch(url, view.event)
        traffic = Traffic(url, backend, view.asked)
        try:
            with view.live or contextlib.nullcontext():
                asyncio.run(run(traffic, view, plan, asked_for.seed))
        except BaseException:
            servers.ignore_signals()  # from here on everything stops: a second Ctrl-C must not interrupt that
            raise
        finally:
            tell(view, traffic.asked, plan)
        if sys.stdin.isatty() and sys.stdout.isatty() and not asked_for.once:
            serve_on(url, view)
