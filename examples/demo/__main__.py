"""See it work: a real small model, the gateway with its head and a rolling token budget, and real questions.

    python -m examples.demo [--once] [--traffic=steady|surge] [--seconds 60] [--rate 3] [--port 8080]

Within two minutes, in the terminal and in the browser: each question's tier and why, right or wrong, the
budget filling and freeing, and the running score of adaptive beside every fixed tier and the best fixed mix.
"""

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
from examples.demo.traffic import Asked, Traffic, arrivals, fresh_questions, watch
from examples.demo.view import View, score_table, standing

WINDOW = 30  # seconds: short enough to see the budget free itself
TOKENS_A_QUESTION = 45  # what the budget grants at the steady rate; the tiers take about 3, 28, 65 and 95
PRICE = 6  # at least; about what 38 tokens a question cost, so that the window does not begin with a feast
SURGE = (0.35, 0.7, 3.0)  # from and to, as shares of the run, and times the rate


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--once", action="store_true", help="exit after the summary instead of serving on")
    parser.add_argument("--traffic", choices=("steady", "surge"), default="steady")
    parser.add_argument("--seconds", type=float, default=60, help="how long questions come")
    parser.add_argument("--rate", type=float, default=3, help="questions a second")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--port", type=int, default=0, help="of the gateway; 0 takes a free one")
    return parser.parse_args()


def settings(backend: str, folder: Path, rate: float) -> dict[str, Any]:
    """The gateway's configuration: the trained head, and one budget over a rolling window."""
    tokens = math.ceil(rate * WINDOW * TOKENS_A_QUESTION)
    budget = {"name": "everyone", "window": f"{WINDOW}s", "tokens": tokens, "reserve": "p95"}
    return servers.settings(
        backend,
        price=PRICE,
        budgets=[budget],
        reservations={"shortest_answer": 8},
        redis={"directory": str(folder / "redis")},
    )


async def run(url: str, backend: str, view: View, asked_for: argparse.Namespace) -> list[Asked]:
    """The stream of questions, drawn as it goes; all that was asked."""
    count = round(asked_for.rate * asked_for.seconds)
    surge = None
    if asked_for.traffic == "surge":
        start, end, factor = SURGE
        surge = (start * asked_for.seconds, end * asked_for.seconds, factor)
        count = round(asked_for.rate * asked_for.seconds * (1 + (end - start) * (factor - 1)))
    questions = fresh_questions(count, asked_for.seed)
    traffic = Traffic(url, backend, view.asked)

    async def draw() -> None:
        while True:
            view.draw(traffic.asked)
            await asyncio.sleep(0.5)

    watch(url, view.snapshot)
    drawing = asyncio.create_task(draw())
    try:
        times = arrivals(count, asked_for.rate, asked_for.seed, surge)
        await traffic.run(questions, times, stop=asked_for.seconds + 30)
    finally:
        drawing.cancel()
        await asyncio.gather(drawing, return_exceptions=True)
        await traffic.close()
    return traffic.asked


def summary(asked: list[Asked]) -> str:
    """One plain paragraph of what was measured."""
    count, rows, gain = standing(asked)
    refused = sum(entry.adaptive is None for entry in asked)
    if gain is None:
        return f"Only {count} of {len(asked)} questions were answered in every way, too few to score."
    adaptive, *fixed, mix = rows
    longest = fixed[-1]
    sure = "more" if gain.low > 0 else "fewer" if gain.high < 0 else "neither surely more nor surely fewer"
    span = f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
    return (
        f"{len(asked)} held-out questions went through the gateway, {refused} of them were refused; {count} "
        f"were also answered at every fixed tier by the same model, at temperature 0. Adaptive got "
        f"{100 * adaptive.accuracy:.1f} % right with {adaptive.tokens:.1f} tokens a question; the best fixed "
        f"mix of tiers gets {100 * mix.accuracy:.1f} % for the same tokens, and always {longest.name} "
        f"{100 * longest.accuracy:.1f} % for {longest.tokens:.1f}. That is {100 * gain.gain:+.1f} points "
        f"over the mix, 95 % interval {span}: {sure} right answers for the same tokens. The interval is wide "
        f"because the run is short; docs/headline.md has more questions."
    )


def surge_summary(asked: list[Asked], view: View, seconds: float) -> str:
    """What the surge did to price and length."""
    start, end = (share * seconds for share in SURGE[:2])

    def mean_tokens(since: float, until: float) -> float:
        answers = [entry.adaptive for entry in asked if since <= entry.at < until and entry.adaptive]
        return sum(answer.tokens for answer in answers) / max(len(answers), 1)

    prices = [view.prices[int(since) : int(until)] for since, until in ((0, start), (start, end))]
    before, during = (sum(part) / max(len(part), 1) for part in prices)
    refused = sum(entry.adaptive is None for entry in asked)
    return (
        f"Before the surge the price was {before:.2g} and an answer took {mean_tokens(0, start):.1f} tokens "
        f"on average; in it, at {SURGE[2]:g} times the rate, {during:.2g} and {mean_tokens(start, end):.1f}; "
        f"{refused} requests were refused."
    )


def serve_on(url: str, out: Console) -> None:
    """Keep serving until Ctrl-C."""
    body = '{"model": "tiny", "messages": [{"role": "user", "content": "What is (3+4)*5-9?"}]}'
    out.print("\nStill serving. Ask it yourself (Ctrl-C ends it):\n", markup=False)
    out.print(
        f"curl -si {url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    out.print(f"\nThe console: {url}/console", highlight=False)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(asyncio.sleep(float("inf")))


def main() -> None:
    """Start everything, ask, show, say what was measured, and serve on where somebody is there to use it."""
    asked_for = options()
    out = Console(width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as running:
        folder = Path(name)
        out.print("Starting the tiny reasoner, the gateway and its Redis …")
        backend = running.enter_context(servers.engine(folder))
        config = settings(backend, folder, asked_for.rate)
        url = running.enter_context(servers.gateway(folder, config, asked_for.port))
        view = View(out, f"{url}/console")
        out.print(f"The console: {url}/console", highlight=False)
        with view.live or contextlib.nullcontext():
            asked = asyncio.run(run(url, backend, view, asked_for))
        out.print(score_table(*standing(asked)))
        out.print(summary(asked), highlight=False)
        if asked_for.traffic == "surge":
            out.print(surge_summary(asked, view, asked_for.seconds), highlight=False)
        if sys.stdin.isatty() and sys.stdout.isatty() and not asked_for.once:
            serve_on(url, out)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
