"""The demo's output: a live screen in a terminal, otherwise plain lines."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from examples.demo.drawing import expected, question_table, reason_words, score_table, sparkline, tier_text
from examples.demo.summary import standing
from examples.demo.traffic import Asked, Plan

SHOWN = 12
OTHER_LINES = 18  # lines of the screen other than the questions
SCORED_EVERY = 8  # questions between scores, because intervals take longer than the rest of the screen
HISTORY = 24  # seconds that the small charts span


class View:
    """Collects events and draws them; prints plain lines if the output is not a terminal."""

    def __init__(self, out: Console, plan: Plan) -> None:
        self.out, self._plan = out, plan
        self._latest: deque[Asked] = deque(maxlen=SHOWN)
        self._unsaid: deque[Asked] = deque()
        self._decisions: dict[str, dict[str, Any]] = {}
        self._budgets: list[dict[str, Any]] = []
        self._fills: list[float] = []
        self._told = 0
        self._following = False
        self._score = score_table(0, [], None, out.width)
        self._scored = 0
        self.prices: list[float] = []
        """Of the last decision, or as configured; one for each second."""
        drawn = out.is_terminal and not out.is_dumb_terminal
        self.live = Live(console=out, auto_refresh=False, transient=True) if drawn else None

    def asked(self, entry: Asked) -> None:
        """Record a question that was answered through the gateway, or refused."""
        self._latest.append(entry)
        self._told += 1
        if self.live is None and (self._told <= SHOWN or self._told % 25 == 0):
            self._unsaid.append(entry)

    def event(self, name: str, body: Any) -> None:
        """Process an event of the console's stream: a snapshot every second, decisions as requests end."""
        if name == "snapshot":
            seconds = body["seconds"]
            self.prices.append(float(seconds[-1]["price"] if seconds else body["price"]))
            self._budgets = body["budgets"]
            self._fills += [used(budget) / budget["cap"] for budget in self._budgets[:1]]
        elif name == "decisions":
            self._decisions |= {entry["decision"]["id"]: entry["decision"] for entry in body}
            if self._following:
                self.out.print(*map(self._followed, body), sep="\n")

    def draw(self, asked: list[Asked], at: float) -> None:
        """Redraw the terminal, or print the lines that are due; `at` is in seconds after the start."""
        while self._unsaid and self._explained(self._unsaid[0]):
            self._say(self._unsaid.popleft())
        if self.live:
            if len(asked) >= self._scored + SCORED_EVERY:
                self._scored = len(asked)
                self._score = score_table(*standing(asked), self.out.width)
            rows = min(max(self.out.height - OTHER_LINES, 2), SHOWN)
            parts = [self._progress(len(asked), at), self._gauges(), Text(), self._questions(rows)]
            self.live.update(Group(*parts, Text(), self._score), refresh=True)

    def finish(self, asked: list[Asked]) -> None:
        """Draw what stays on the screen after the questions."""
        if self.live:
            self.out.print(self._questions(SHOWN), Text())
        for entry in self._unsaid:
            self._say(entry)
        self.out.print(score_table(*standing(asked), self.out.width), Text())

    @property
    def complete(self) -> bool:
        """Whether the stream has delivered the decisions of all questions shown; they follow the answers."""
        return all(self._explained(entry) for entry in [*self._latest, *self._unsaid])

    def follow(self) -> None:
        """Print every decision from now on."""
        self._following = True

    def _progress(self, count: int, at: float) -> Text:
        plan = self._plan
        line = Text.assemble(("Thinkmeter", "bold"), f"  {count} questions")
        line.append(f", {min(at, plan.seconds):.0f} of {plan.seconds:g} s")
        if plan.surge and at < plan.surge_from:
            line.append(f", the surge begins in {plan.surge_from - at:.0f} s")
        elif plan.surge and at < plan.surge_to:
            line.append("  SURGE", "bold yellow").append(f": {plan.factor:g} times the rate", "yellow")
        elif plan.surge:
            line.append(", the surge is over")
        return line

    def _gauges(self) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        width = HISTORY if self.out.width >= 3 * HISTORY else HISTORY // 3
        price = f"ten more tokens must gain {self._price:.2g} points"
        grid.add_row("price", f"{self._price:.3g}", Text(sparkline(self.prices, width), "yellow"), price)
        for budget in self._budgets[:1]:
            words = f"{used(budget):,.0f} of {budget['cap']:,.0f} tokens in {budget['window']} s"
            full = f"{100 * used(budget) / budget['cap']:.0f} %"
            grid.add_row("budget", full, Text(sparkline(self._fills, width, 1.0), "cyan"), words)
        return grid

    def _questions(self, rows: int) -> Table:
        return question_table(list(self._latest)[-rows:], self._decisions, self.out.width)

    @property
    def _price(self) -> float:
        return self.prices[-1] if self.prices else 0.0

    def _state(self) -> str:
        full = [f"{b['budget']} {100 * used(b) / b['cap']:.0f} % full" for b in self._budgets]
        return ", ".join([f"price {self._price:.3g}", *full])

    def _explained(self, entry: Asked) -> bool:
        return entry.adaptive is None or entry.adaptive.decision in self._decisions

    def _say(self, entry: Asked) -> None:
        self.out.print(self._plain(entry), highlight=False, soft_wrap=True)

    def _plain(self, entry: Asked) -> str:
        answer = entry.adaptive
        if answer is None:
            return f"refused ({entry.refused}): {entry.question.text}"
        correct = self._decisions.get(answer.decision, {}).get("correct", {})
        rights = ", ".join(f"{tier} {100 * right:.0f} %" for tier, right in correct.items()) or "unknown"
        words = f"{answer.tier:6}  {reason_words(answer.reason):10}  {'right' if answer.right else 'wrong'}"
        question = f"{answer.tokens:3} tokens  {entry.question.text[:70]}"
        return f"{words}  {question}\n        P(right): {rights}; {self._state()}"

    def _followed(self, entry: Mapping[str, Any]) -> Text:
        decision = entry["decision"]
        why = f"  {reason_words(decision['reason']):10}  P(right), %:"
        came = f"{entry['completion_tokens'] or 0:4} tokens"
        if entry["status"] >= 400:
            came = f"failed with status {entry['status']}"
        return Text.assemble(
            tier_text(decision["tier"]), why, expected(decision), f" {came}, {self._state()}"
        )


def used(budget: Mapping[str, Any]) -> float:
    """Tokens of a window that are settled or reserved."""
    return float(budget["settled"] + budget["reserved"])
