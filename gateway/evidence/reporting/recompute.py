"""Recompute a report from exported rows, with nothing but Python.

    thinkmeter evidence export CONFIG --since BEGIN --until END > decisions.jsonl
    thinkmeter evidence export CONFIG --table feedback > feedback.jsonl
    python recompute.py decisions.jsonl feedback.jsonl [--costs costs.json] [--by key|team|model]

costs.json is the section `costs` of the configuration as JSON. This file shares no code with the report.
"""

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

_Row = dict[Any, Any]
_Rows = list[_Row]
_Amount = Callable[[_Row], float | None]
_FEWEST = 30


def _read_lines(path: str) -> list[_Row]:
    with Path(path).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _means_by_arm(rows: _Rows, amount: _Amount) -> dict[str, tuple[int, int, float, float]]:
    """By arm: conversations, requests, mean per request, and the variance of that mean."""
    found: dict[str, tuple[int, int, float, float]] = {}
    for arm in ("adaptive", "holdout"):
        talks: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            if row["arm"] == arm and (value := amount(row)) is not None:
                talks[row["conversation"] or row["id"]].append(value)
        count, requests = len(talks), sum(map(len, talks.values()))
        mean = sum(map(sum, talks.values())) / requests if requests else 0.0
        spread = sum((sum(talk) - mean * len(talk)) ** 2 for talk in talks.values())
        variance = count / (count - 1) * spread / requests**2 if count > 1 else math.inf
        found[arm] = count, requests, mean, variance
    return found


def _quantile_of_t(freedom: float) -> float:
    """97.5 % of Student's t, by bisection of the integral of its density (Simpson's rule)."""
    if freedom > 1e6:
        return 1.959963984540054
    factor = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(
        freedom * math.pi
    )

    def density(x: float) -> float:
        return factor * math.pow(1 + x * x / freedom, -(freedom + 1) / 2)

    low, high = 0.0, 50.0
    while high - low > 1e-9:
        t = (low + high) / 2
        steps = [density(t * i / 400) * (1 if i in (0, 400) else 4 if i % 2 else 2) for i in range(401)]
        low, high = (t, high) if t / 1200 * sum(steps) < 0.475 else (low, t)
    return low


def _saving(rows: _Rows, amount: _Amount) -> dict[str, list[float]] | None:
    """Held-out mean less adaptive mean: per request, in total, as a share; each with its 95 % interval."""
    arms = _means_by_arm(rows, amount)
    (c, n, ours, own), (d, _, theirs, other) = arms["adaptive"], arms["holdout"]
    if min(c, d) < _FEWEST:
        return None
    spread = own**2 / (c - 1) + other**2 / (d - 1)
    t = _quantile_of_t((own + other) ** 2 / spread if spread else math.inf)
    each, half = theirs - ours, t * math.sqrt(own + other)
    result = {"per_request": [each, each - half, each + half]}
    result["total"] = [n * value for value in result["per_request"]]
    if ours > 0 < theirs:
        wide = t * math.sqrt(own / ours**2 + other / theirs**2)
        result["share"] = [1 - ours / theirs * math.exp(end) for end in (0, wide, -wide)]
    return result


def _share_right(clusters: int, judged: int, mean: float, variance: float) -> list[float]:
    """A share with Wilson's interval, of as many answers as its variance is worth."""
    z = 1.959963984540054
    n = float(clusters)
    if 0 < mean < 1 and 0 < variance < math.inf:
        n = min(max(mean * (1 - mean) / variance, 1), judged)
    centre = (mean + z * z / 2 / n) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / 4 / n / n)
    return [mean, max(min(centre - half, mean), 0), min(max(centre + half, mean), 1)]


def _right(rows: _Rows, score: _Amount) -> dict[str, list[float]] | None:
    """Adaptive share of right answers less that of the held out, with Newcombe's interval."""
    arms = _means_by_arm(rows, score)
    if min(arm[0] for arm in arms.values()) < _FEWEST:
        return None
    (a, a_low, a_high), (b, b_low, b_high) = (_share_right(*arms[arm]) for arm in ("adaptive", "holdout"))
    low, high = a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low)
    return {"adaptive": [a, a_low, a_high], "holdout": [b, b_low, b_high], "difference": [a - b, low, high]}


def _compare(rows: _Rows, scores: dict[str, float], costs: _Row) -> _Row:
    models = costs.get("models", {})

    def tokens(row: _Row) -> float | None:
        found: float | None = row["completion_tokens"]
        return found

    def gpu_hours(row: _Row) -> float | None:
        if row["completion_tokens"] is None or row["model"] not in models:
            return None
        return float(row["completion_tokens"] * models[row["model"]].get("gpu_hours", 0) / 1e6)

    def money(row: _Row) -> float | None:
        if (hours := gpu_hours(row)) is None:
            return None
        model = models[row["model"]]
        bought = (row["prompt_tokens"] or 0) * model.get("prompt", 0)
        bought += row["completion_tokens"] * model.get("completion", 0)
        return float(bought / 1e6 + hours * costs.get("gpu_hour", 0))

    found = {name.__name__: _saving(rows, name) for name in (tokens, money, gpu_hours)}
    return {**found, "right": _right(rows, lambda row: scores.get(row["id"]))}


def _by_day(rows: _Rows) -> _Row:
    days: dict[int, _Rows] = defaultdict(list)
    for row in rows:
        days[math.floor(row["at"] / 86_400)].append(row)
    return {
        day: {
            "requests": len(some),
            "completion_tokens": sum(row["completion_tokens"] or 0 for row in some),
            "price": sum(row["price"] for row in some) / len(some),
            "highest_price": max(row["price"] for row in some),
            "shortened": sum(row["reason"] == "budget" and row["wanted_rung"] is not None for row in some),
            "refused": sum(row["status"] == 429 for row in some),
        }
        for day, some in sorted(days.items())
    }


def _minimums(rows: _Rows) -> _Row:
    floored = [row for row in rows if (row["rungs"] or {}).get("lowest", 0) > 0]
    return {
        "requests": len(floored),
        "refused": sum(row["status"] == 429 for row in floored),
        "failed": sum(row["status"] >= 400 and row["status"] != 429 for row in floored),
        "below": sum(
            row["wanted_rung"] is not None and row["rung"] < row["rungs"]["lowest"] for row in floored
        ),
    }


def _left_out(rows: _Rows, compared: _Rows, costs: _Row) -> _Row:
    """Requests of no arm, without a hold-out, without a count by arm, and of models without costs."""
    inside = [row for row in compared if row["arm"] in ("adaptive", "holdout")]
    models = costs.get("models", {})
    return {
        "one_rung": sum(row["arm"] not in ("adaptive", "holdout") for row in rows),
        "no_holdout": sum(row["arm"] in ("adaptive", "holdout") for row in rows) - len(inside),
        **{
            f"uncounted_{arm}": sum(row["arm"] == arm and row["completion_tokens"] is None for row in inside)
            for arm in ("adaptive", "holdout")
        },
        "uncosted": sum(
            row["completion_tokens"] is not None and row["model"] not in models for row in inside if models
        ),
    }


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("decisions")
    parser.add_argument("feedback")
    parser.add_argument("--costs")
    parser.add_argument("--by", choices=["key", "team", "model"])
    options = parser.parse_args()
    rows = _read_lines(options.decisions)
    costs: _Row = {}
    if options.costs:
        costs = json.loads(Path(options.costs).read_text(encoding="utf-8"))
    given: dict[str, list[float]] = defaultdict(list)
    for row in _read_lines(options.feedback):
        given[row["decision"]].append(row["score"])
    scores = {decision: sum(some) / len(some) for decision, some in given.items()}
    arms: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        arms[row["config"]].add(row["arm"])
    compared = [row for row in rows if {"adaptive", "holdout"} <= arms[row["config"]]]
    groups = {row[options.by] for row in compared} if options.by else set()
    result = {
        "whole": _compare(compared, scores, costs),
        "groups": {
            str(name): _compare([row for row in compared if row[options.by] == name], scores, costs)
            for name in groups
        },
        "days": _by_day(rows),
        "minimums": _minimums(rows),
        "left_out": _left_out(rows, compared, costs),
    }
    sys.stdout.write(json.dumps(result, indent=1))


if __name__ == "__main__":
    _main()
