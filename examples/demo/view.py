"""What the demo shows in the terminal: live where there is one, else as plain lines."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from examples.demo.score import Gain, Score, scores
from examples.demo.traffic import Asked
from examples.servers import TIERS

SHOWN = 10
FEWEST = 20  # questions before a score means anything


def standing(asked: list[Asked]) -> tuple[int, list[Score], Gain | None]:
    """Questions answered in every way, and the scores on them."""
    done = [entry for entry in asked if entry.complete]
    if len(done) < FEWEST:
        return len(done), [], None
    adaptive = [entry.adaptive for entry in done if entry.adaptive]
    pair = (np.array([float(a.right) for a in adaptive]), np.array([float(a.tokens) for a in adaptive]))
    fixed = {
        tier: (
            np.array([float(entry.fixed[tier].right) for entry in done]),
            np.array([float(entry.fixed[tier].tokens) for entry in done]),
        )
        for tier in TIERS
    }
    rows, gain = scores(pair, fixed)
    return len(done), rows, gain


class View:
    """Collects what happens and draws it; plain lines when the output is no terminal."""

    def __init__(self, out: Console, console_url: str) -> None:
        self.out, self._url = out, console_url
        self._latest: deque[Asked] = deque(maxlen=SHOWN)
        self._snapshot: dict[str, Any] = {}
        self._told = 0
        self.prices: list[float] = []
        self._score = score_table(0, [], None)
        self._scored_at = 0
        self.live = Live(console=out, auto_refresh=False, transient=True) if out.is_terminal else None

    def asked(self, entry: Asked) -> None:
        """A question was answered through the gateway."""
        self._latest.append(entry)
        self._told += 1
        if self.live is None and (self._told <= SHOWN or self._told % 25 == 0):
            self.out.print(self._plain(entry), highlight=False, soft_wrap=True)

    def snapshot(self, body: dict[str, Any]) -> None:
        """The gateway's state of this second."""
        self._snapshot = body
        self.prices.append(self.price)

    @property
    def price(self) -> float:
        """Of the last decision, or as configured."""
        seconds = self._snapshot.get("seconds", [])
        return float(seconds[-1]["price"] if seconds else self._snapshot.get("price", 0.0))

    def draw(self, all_asked: list[Asked]) -> None:
        """Redraw the terminal."""
        if self.live:
            if len(all_asked) >= self._scored_at + 8:  # the intervals cost more than the rest of the picture
                self._scored_at = len(all_asked)
                self._score = score_table(*standing(all_asked))
            parts = [self._head(), self._questions(), *self._budgets(), self._score]
            self.live.update(Group(*parts), refresh=True)

    def _head(self) -> RenderableType:
        text = Text.assemble(("Thinkmeter demo", "bold"), "   in the browser: ", (self._url, "cyan"))
        return Group(text, Text(f"price {self.price:.3g} per 1,000 tokens"))

    def _questions(self) -> Table:
        table = Table(expand=True, box=None, padding=(0, 1))
        table.add_column("question", no_wrap=True, ratio=1)
        for name in ("tier", "why"):
            table.add_column(name, no_wrap=True, min_width=7)
        table.add_column("answer", no_wrap=True, max_width=10)
        table.add_column("", width=5)
        table.add_column("tokens", justify="right")
        for entry in self._latest:
            answer = entry.adaptive
            if answer is None:
                table.add_row(entry.question.text, "–", entry.refused or "", "", "", "", style="yellow")
                continue
            mark = Text("right", "green") if answer.right else Text("wrong", "red")
            table.add_row(
                entry.question.text, answer.tier, answer.reason, answer.text, mark, str(answer.tokens)
            )
        return table

    def _budgets(self) -> list[RenderableType]:
        rows: list[RenderableType] = []
        for budget in self._snapshot.get("budgets", []):
            used = budget["settled"] + budget["reserved"]
            text = f"{budget['budget']}: {used:,.0f} of {budget['cap']:,.0f} tokens in {budget['window']} s"
            grid = Table.grid(padding=(0, 2))
            grid.add_row(ProgressBar(total=budget["cap"], completed=min(used, budget["cap"]), width=40), text)
            rows += [Text(), grid]
        return [*rows, Text()]

    def _plain(self, entry: Asked) -> str:
        answer = entry.adaptive
        if answer is None:
            return f"{entry.refused}: {entry.question.text}"
        mark = "right" if answer.right else "wrong"
        budgets = [
            f"{b['budget']} {100 * (b['settled'] + b['reserved']) / b['cap']:.0f} % full"
            for b in self._snapshot.get("budgets", [])
        ]
        state = ", ".join([f"price {self.price:.3g}", *budgets])
        text = (
            f"{answer.tier:7} {answer.reason:9} {mark} {answer.tokens:4} tokens  {entry.question.text[:60]}"
        )
        return f"{text}  ({state})"


def score_table(count: int, rows: list[Score], gain: Gain | None) -> Table:
    """Every way to answer, adaptive first and the best fixed mix last."""
    title = (
        f"{count} questions, each answered in every way" if rows else "the score needs a few more questions"
    )
    table = Table(
        "way to answer", "right", "95 % interval", "tokens a question", title=title, title_justify="left"
    )
    for row in rows:
        style = "bold" if row.name == "adaptive" else None
        table.add_row(
            row.name,
            f"{100 * row.accuracy:.1f} %",
            f"{100 * row.low:.1f} to {100 * row.high:.1f}",
            f"{row.tokens:.1f}",
            style=style,
        )
    if gain:
        text = f"{100 * gain.gain:+.1f} points, {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
        table.caption = f"adaptive over the best fixed mix at the same tokens: {text}"
    return table
