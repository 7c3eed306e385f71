"""The page of a run: one HTML file without scripts and without links to other files. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from html import escape

from gateway.evidence.html import bullets, document, html_table
from gateway.evidence.measuring.ceiling import CurvePoint
from gateway.evidence.measuring.summary import RungSummary, RunSummary
from gateway.evidence.measuring.wording import COLUMNS, cells, problems, sentences, title

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 720, 380, 56, 44, 16, 24


def page_of(run: RunSummary, when: str) -> str:
    """The page as HTML. when: the date to print on it."""
    found = list(problems(run))
    parts = [
        f"<h1>{escape(title(run))}</h1>",
        *(f"<p>{escape(each)}</p>" for each in sentences(run)),
        "<h2>By rung</h2>",
        html_table(COLUMNS, map(cells, run.rungs)),
        _figure(run),
        *(["<h2>What is missing</h2>", bullets(found)] if found else []),
        "<h2>How to read this</h2>",
        bullets(_NOTES),
        (
            f"<footer>Thinkmeter, {escape(when)}. {run.answers:,} answers,"
            f" {run.tokens:,} completion tokens.</footer>"
        ),
    ]
    return document(title(run), parts)


_NOTES = (
    "Intervals hold with 95 %. They count prompts: another sample of a prompt stands for no other prompt.",
    "Shares have Wilson's interval, of as many answers as their variance is worth (Korn and Graubard, 1998).",
    "Differences are between the same prompts, with the interval of Bonett and Price (2012).",
    "Tokens are completion tokens, reasoning included, as the backend counted them.",
    "The line of fixed rungs is the best that fixed rungs reach when they are mixed at random.",
)


def _figure(run: RunSummary) -> str:
    """Right answers over tokens: the rungs with their intervals, and what a router could reach."""
    shown = [rung for rung in run.rungs if rung.right.prompts]
    if not shown:
        return ""
    most = max(rung.tokens.mean for rung in shown) * 1.08 or 1.0
    low = min(rung.right.low for rung in shown)
    high = max(rung.right.high for rung in shown)
    if run.router:
        high = max(high, *(point.accuracy for point in run.router.ceiling.highest))
    low, high = max(low - 0.05, 0.0), min(high + 0.05, 1.0)

    def across(tokens: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * tokens / most

    def up(right: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * (right - low) / (high - low)

    drawn = [*_axes(most, low, high, across, up)]
    if run.router:
        ceiling = run.router.ceiling
        curves = (("highest", ceiling.highest), ("lowest", ceiling.lowest), ("fixed", ceiling.fixed))
        drawn += [_curve(name, curve, across, up) for name, curve in curves if curve]
    if run.head and run.head.curve:
        drawn.append(_curve("head", run.head.curve, across, up))
    drawn += [mark for rung in shown for mark in _marks(rung, across, up)]
    caption = "Right answers over mean completion tokens. Dots: fixed rungs with their intervals."
    if run.router:
        caption += " Dashed: the best rung of every prompt, luck included."
        if run.router.ceiling.lowest:
            caption += " Green: the same without luck."
    if run.head and run.head.curve:
        caption += " Orange: the calibrated head, on prompts that it did not learn from."
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(caption)}">'
        + "".join(drawn)
        + f"</svg><figcaption>{escape(caption)}</figcaption></figure>"
    )


_Scale = Callable[[float], float]


def _axes(most: float, low: float, high: float, across: _Scale, up: _Scale) -> Iterator[str]:
    for step in range(5):
        right, tokens = low + (high - low) * step / 4, most * step / 4
        yield f'<path class="grid" d="M{_LEFT} {up(right):.1f}H{_WIDTH - _RIGHT}"/>'
        yield f'<text x="{_LEFT - 6}" y="{up(right) + 4:.1f}" text-anchor="end">{100 * right:.0f} %</text>'
        yield (
            f'<text x="{across(tokens):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">'
            f"{tokens:,.0f}</text>"
        )
    middle = f'x="{_WIDTH / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle"'
    yield f"<text {middle}>completion tokens per prompt</text>"


def _curve(name: str, curve: Iterable[CurvePoint], across: _Scale, up: _Scale) -> str:
    points = " ".join(f"{across(tokens):.1f},{up(right):.1f}" for tokens, right in curve)
    return f'<polyline class="{name}" points="{points}"/>'


def _marks(rung: RungSummary, across: _Scale, up: _Scale) -> Iterator[str]:
    x, y = across(rung.tokens.mean), up(rung.right.mean)
    yield f'<path class="whisker" d="M{x:.1f} {up(rung.right.low):.1f}V{up(rung.right.high):.1f}"/>'
    yield f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    yield f'<text x="{x + 7:.1f}" y="{y - 7:.1f}">{escape(rung.name)}</text>'
