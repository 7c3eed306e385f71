"""What the choices of a new head gain over fixed rungs, on prompts that it did not learn from."""

from __future__ import annotations

from collections.abc import Iterator

from router_model.arrays import Floats
from router_model.evaluation.methods import Estimates
from router_model.evaluation.saved_head import score_estimates, scored
from router_model.report.summary import Summary, summarise
from router_model.training.outcomes import FEWEST, OutcomeTable

_NAME = "new"
_DRAWS = 400
_LIKELY = 0.025
"""The highest one-sided p-value of a gain, so that its interval of 95 % lies above zero."""
_SLIGHT = -0.005
"""Losses down to half a point, which a head may have at tiers that hardly differ, are not called losses."""
_BUDGETS = {"lean": "a quarter", "middle": "half", "ample": "three quarters"}


def gain_sentences(correct: Floats, tokens: Floats, table: OutcomeTable) -> Iterator[str]:
    """Say the gain at three budgets, and whether it can be told from chance.

    correct, tokens: estimates for each prompt and rung of the table, [N, T]. Only prompts with all outcomes
    count. Nothing is said below 20 of these.
    """
    whole = (table.samples > 0).all(axis=1)
    if whole.sum() < FEWEST or len(table.tiers) < 2:
        return
    known = table.take(whole)
    cell = score_estimates(Estimates(correct[whole], tokens[whole]), known)
    found = summarise(scored(known, "", _NAME, [cell]), "", "", _NAME, _DRAWS)["methods"][_NAME]
    each = [f"{_points(found, f'gain_{name}')} at {share}" for name, share in _BUDGETS.items()]
    yield (
        "Against fixed rungs, mixed as well as possible, at equal tokens, its choices gain"
        f" {each[0]}, {each[1]} and {each[2]} of the extra tokens"
        f" (points, on {len(known):,} prompts left out)."
    )
    yield _verdict(found)


def _points(found: Summary, key: str) -> str:
    mean, low, high = (0.0 if value is None else 100 * value for value in found["measures"][key])
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})".replace("-", "−")


def _verdict(found: Summary) -> str:
    over_all = f"{_points(found, 'aiq_gain')} points over all budgets"
    if found["p_value"] <= _LIKELY:
        return f"A router gains here: {over_all}, less what chance gives."
    high = found["measures"]["aiq_gain"][2]
    if high is not None and high < _SLIGHT:
        return f"A router loses here: {over_all}. A fixed tier is better until there are more prompts."
    return f"No gain of a router can be told from chance here: {over_all}. A fixed tier does as well."
