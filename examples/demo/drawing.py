"""Parts of the demo's screen: small text charts, the questions, the score. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from examples.demo.score import Gain, Score
from examples.demo.summary import FEWEST
from examples.demo.traffic import Asked
from examples.servers import TIERS

STYLES = dict(zip(TIERS, ("dim", "cyan", "bold cyan", "bold magenta"), strict=True))
REASONS = {"price": "best value", "only_tier": "only tier"}
BLOCKS = "▁▂▃▄▅▆▇█"
ANSWERS_FROM, ESTIMATES_FROM = 96, 72  # columns of the terminal
SCALE = (16, 50)  # minimum and maximum columns of the score's drawing
BESIDE_SCALE = 52

Decisions = Mapping[str, Mapping[str, Any]]


def sparkline(values: Sequence[float], width: int, top: float | None = None) -> str:
    """The last `width` values, one character each; `top` is the tallest, by default the largest value."""
    top = top or max([*values, 0.0])
    shares = [min(value / top, 1.0) if top else 0.0 for value in values[-width:]]
    return "".join(BLOCKS[round(share * (len(BLOCKS) - 1))] for share in shares).ljust(width)


def interval(score: Score, width: int) -> str:
    """A score and its interval on a scale of 0 to 100 %, `width` characters long."""
    low, at, high = (min(int(share * width), width - 1) for share in (score.low, score.accuracy, score.high))
    drawn = [" "] * width
    drawn[low : high + 1] = "─" * (high + 1 - low)
    drawn[low], drawn[high], drawn[at] = "├", "┤", "●"
    return "".join(drawn).rstrip()


def reason_words(reason: str) -> str:
    return REASONS.get(reason, reason.replace("_", " "))


def tier_text(tier: str) -> Text:
    return Text(f"{tier:6}", STYLES.get(tier, ""))


def expected(decision: Mapping[str, Any] | None) -> Text:
    """P(right) of each tier in %, with the chosen tier marked; empty while unknown."""
    text = Text()
    for tier, right in (decision or {}).get("correct", {}).items():
        chosen = decision is not None and tier == decision["tier"]
        text.append(f"{100 * right:3.0f}", "bold reverse" if chosen else "dim").append(" ")
    return text


def question_table(entries: Iterable[Asked], decisions: Decisions, width: int) -> Table:
    """One line per question; narrow terminals get fewer columns."""
    table = Table(expand=True, box=None, padding=(0, 1), header_style="dim")
    table.add_column("question", no_wrap=True, ratio=1)
    columns = {"tier": 6, "P(right), %": 16, "why": 10, "answer": 6}
    shown = {"tier": 0, "P(right), %": ESTIMATES_FROM, "why": 0, "answer": ANSWERS_FROM}
    names = [name for name in columns if width >= shown[name]]
    for name in names:
        table.add_column(name, no_wrap=True, min_width=columns[name], max_width=20)
    table.add_column("", width=5)
    table.add_column("tokens", justify="right")
    for entry in entries:
        cells = _cells(entry, decisions)
        table.add_row(
            Text(entry.question.text), *(cells.get(name, "") for name in [*names, "mark", "tokens"])
        )
    return table


def _cells(entry: Asked, decisions: Decisions) -> dict[str, Text | str]:
    answer = entry.adaptive
    if answer is None:
        return {"tier": "–", "why": Text((entry.refused or "refused").replace("_", " "), "yellow")}
    return {
        "tier": tier_text(answer.tier),
        "P(right), %": expected(decisions.get(answer.decision)),
        "why": reason_words(answer.reason),
        "answer": Text(answer.text),
        "mark": Text("right", "green") if answer.right else Text("wrong", "red"),
        "tokens": str(answer.tokens),
    }


def score_table(count: int, rows: list[Score], gain: Gain | None, width: int) -> RenderableType:
    """Adaptive, the best fixed mix, then each fixed tier; draws intervals if there is room."""
    if not gain:
        return Text(f"The score needs {FEWEST} questions answered by every method; so far {count}.", "dim")
    room = min(width - BESIDE_SCALE, SCALE[1])
    title = f"Score on {count} questions answered by every method"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="dim")
    table.add_column("method", no_wrap=True)
    for name in ("tokens", "right", "95 % interval"):
        table.add_column(name, justify="right")
    if room >= SCALE[0]:
        table.add_column(Text("0 %" + "100 %".rjust(room - 3)), no_wrap=True)
    for row in rows:
        style = "bold green" if row.name == "adaptive" else STYLES.get(row.name, "")
        cells = [row.name, f"{row.tokens:.1f}", f"{100 * row.accuracy:.1f} %"]
        cells += [f"{100 * row.low:.1f} to {100 * row.high:.1f}"]
        cells += [interval(row, room)] if room >= SCALE[0] else []
        table.add_row(*cells, style=style)
    span = f"{100 * gain.gain:+.1f} points, 95 % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
    return Group(
        table, Text.assemble("adaptive over the best fixed mix at the same tokens: ", (span, "bold"))
    )
