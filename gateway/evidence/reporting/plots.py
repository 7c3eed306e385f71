"""The plots of the report, as inline SVG. No I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape

from gateway.evidence.quality import Bounded
from gateway.evidence.reporting.summary import ReportedDay
from gateway.evidence.reporting.wording import day_name, share_text

_WIDTH, _LEFT, _RIGHT = 480, 120, 28
_ROW, _FOOT = 34, 36
_TALL, _EDGE, _TOP = 170, 52, 14
_LONGEST = 18  # characters of a name beside a plot


def intervals_plot(caption: str, rows: Sequence[tuple[str, Bounded]]) -> str:
    """Shares with their intervals, one per row, around a line at zero. Empty without rows."""
    if not rows:
        return ""
    lowest = min(0.0, *(max(bounds.low, -2.0) for _, bounds in rows))
    highest = max(0.0, *(min(bounds.high, 2.0) for _, bounds in rows))
    step = round_step(highest - lowest)
    low, high = math.floor(lowest / step) * step, max(math.ceil(highest / step), 1) * step

    def across(share: float) -> float:
        place = (min(max(share, low), high) - low) / (high - low)
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * place

    height = _ROW * len(rows) + _FOOT
    marks = [*_share_axis(low, high, step, height, across)]
    for number, (name, bounds) in enumerate(rows):
        marks += _interval(name, bounds, _ROW * number + 24, across)
    return _drawn(caption, height, marks)


def round_step(width: float) -> float:
    """The distance between at most five marks on an axis this wide: 1, 2 or 5 times a power of ten."""
    least = max(width, 1e-3) / 4
    power = 10.0 ** math.floor(math.log10(least))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= least)


def _share_axis(
    low: float, high: float, step: float, height: int, across: Callable[[float], float]
) -> Iterator[str]:
    for number in range(round((high - low) / step) + 1):
        share = low + number * step
        x, y = across(share), height - _FOOT + 6
        yield f'<path class="grid" d="M{x:.1f} 0V{y}"/>'
        label = f"{round(100 * share, 6):g} %".replace("-", "−")
        yield f'<text x="{x:.1f}" y="{y + 16}" text-anchor="middle">{label}</text>'
    yield f'<path class="zero" d="M{across(0):.1f} 0V{height - _FOOT + 6}"/>'


def _interval(name: str, bounds: Bounded, y: int, across: Callable[[float], float]) -> Iterator[str]:
    short = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
    yield f"<g><title>{escape(f'{name}: {share_text(bounds)}')}</title>"
    yield f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{escape(short)}</text>'
    yield f'<path class="whisker" d="M{across(bounds.low):.1f} {y}H{across(bounds.high):.1f}"/>'
    yield f'<circle class="dot" cx="{across(bounds.mean):.1f}" cy="{y}" r="4"/></g>'


def days_plot(
    caption: str,
    days: Sequence[ReportedDay],
    bars: Callable[[ReportedDay], float],
    line: Callable[[ReportedDay], float] | None = None,
) -> str:
    """A bar for each day, with gaps where there was none, and perhaps a line. Empty without days."""
    if not days:
        return ""
    first, count = days[0].day, days[-1].day - days[0].day + 1
    most = max(max(bars(day), line(day) if line else 0.0) for day in days) or 1.0
    wide = (_WIDTH - _EDGE - _RIGHT) / count

    def up(value: float) -> float:
        return _TALL - (_TALL - _TOP) * value / most

    marks = []
    for part in range(3):
        value = most * part / 2
        marks.append(f'<path class="grid" d="M{_EDGE} {up(value):.1f}H{_WIDTH - _RIGHT}"/>')
        marks.append(
            f'<text x="{_EDGE - 6}" y="{up(value) + 4:.1f}" text-anchor="end">{_short(value)}</text>'
        )
    points = []
    for day in days:
        x, y = _EDGE + wide * (day.day - first), up(bars(day))
        marks.append(
            f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{0.9 * wide:.1f}" height="{_TALL - y:.1f}"/>'
        )
        points.append(f"{x + 0.45 * wide:.1f},{up(line(day)) if line else 0:.1f}")
    if line:
        marks.append(f'<polyline class="head" points="{" ".join(points)}"/>')
    marks.append(f'<text x="{_EDGE}" y="{_TALL + 18}">{day_name(first)}</text>')
    if count > 1:
        place = f'x="{_WIDTH - _RIGHT}" y="{_TALL + 18}" text-anchor="end"'
        marks.append(f"<text {place}>{day_name(days[-1].day)}</text>")
    return _drawn(caption, _TALL + _FOOT - 8, marks)


def _short(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _drawn(caption: str, height: int, marks: Sequence[str]) -> str:
    return (
        f'<figure><svg width="{_WIDTH}" viewBox="0 0 {_WIDTH} {height}" role="img"'
        f' aria-label="{escape(caption)}">'
        + "".join(marks)
        + f"</svg><figcaption>{escape(caption)}</figcaption></figure>"
    )
