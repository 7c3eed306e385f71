"""Shrinks the curves of one model towards a prior, the more the fewer outcomes there are (empirical Bayes).

n prompts count against the k pseudo-prompts of the prior: predictions become (n · own + k · prior) / (n + k).
This moves the intercepts to the prior and shrinks the differences between prompts, of which the prior knows
none. k is chosen by the cross-fitted loss, once for P(right) and once for tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from router_model.arrays import Floats, Singles
from router_model.encoders.ngrams import HASHED
from router_model.head_parts import Curves
from router_model.predictor import TierLength
from router_model.prior import Prior, PriorLadder
from router_model.training.outcomes import OutcomeError, OutcomeTable, log_tokens
from router_model.training.tier_curves import deviance, sample_weights

_ANSWER = 4096  # room for the answer, more than the prior expects
_STRENGTHS = (0.0, 5.0, 20.0, 80.0, 320.0, 1280.0)  # pseudo-prompts


class Home(NamedTuple):
    """What is expected of a model's T tiers before anything was measured."""

    logits: Floats
    """Of P(right), [T]."""
    log_tokens: Floats
    """ln E[tokens], [T]."""


def expected(prior: Prior, table: OutcomeTable, lengths: Mapping[str, float]) -> Home | None:
    """What the prior expects of the tiers, on average over the table's prompts; None if a length is unknown.

    lengths: thinking budgets by tier.
    """
    if set(lengths) != set(table.tiers):
        return None
    rungs = sorted(table.tiers, key=lengths.__getitem__)
    ladder = PriorLadder.of(prior, [TierLength(tier, round(lengths[tier]), _ANSWER) for tier in rungs])
    counts = HASHED.encode_all(list(table.prompts)).dense
    correct, tokens = (part.mean(axis=0) for part in ladder.outcomes(prior.read(counts)))
    right = np.clip(correct, 0.01, 0.99)
    order = [rungs.index(tier) for tier in table.tiers]
    return Home(np.log(right / (1 - right))[order], np.log(tokens)[order])


def check_home(home: Home, table: OutcomeTable) -> None:
    """Refuse a prior for other tiers or with values that are not finite. Raises: OutcomeError."""
    count = len(table.tiers)
    values = np.concatenate((home.logits, home.log_tokens))
    if len(home.logits) != count or len(home.log_tokens) != count or not np.isfinite(values).all():
        raise OutcomeError(f"{table.name}: the prior needs a finite value for each of {count} tiers")


def strengths(raw: Floats, table: OutcomeTable, home: Home) -> tuple[float, float]:
    """The pseudo-prompts of the prior for P(right) and for tokens.

    raw [N, 2T]: cross-fitted logits and log tokens.
    """
    count = len(table.tiers)
    target = np.concatenate(home)
    weight, logs = sample_weights(table), log_tokens(table)

    def losses(strength: float) -> tuple[float, float]:
        mixed = _mix(raw, target, len(table) / (len(table) + strength))
        off = weight * (mixed[:, count:] - logs) ** 2
        return float(deviance(mixed, table).mean()), float(off.mean())

    found = np.array([losses(strength) for strength in _STRENGTHS])
    right, tokens = found.argmin(axis=0)
    return _STRENGTHS[right], _STRENGTHS[tokens]


def towards(curves: Curves, home: Home, prompts: int, strength: tuple[float, float]) -> Curves:
    """The curves of `prompts` prompts, shrunk towards the prior of these strengths."""
    count, single = len(curves.tiers), np.float32
    right, tokens = (prompts / (prompts + each) for each in strength)
    share = np.repeat((right, tokens), count)
    expected = 1 / (1 + np.exp(-np.asarray(home.logits)))
    by_length = curves.by_length * tokens
    by_length[0] += (1 - tokens) * np.asarray(home.log_tokens)
    # the limits are those of the tokens that were seen, and a prior may expect more
    low = np.minimum(curves.low, np.exp(home.log_tokens)) if tokens < 1 else curves.low
    high = np.maximum(curves.high, np.exp(home.log_tokens)) if tokens < 1 else curves.high
    return replace(
        curves,
        weights=(curves.weights * share).astype(single),
        bias=_mix(curves.bias, np.concatenate(home), share).astype(single),
        low=low.astype(single),
        high=high.astype(single),
        offset=_mix(curves.offset, expected - expected.mean(), right).astype(single),
        average=_mix(curves.average, expected, right).astype(single),
        by_length=by_length.astype(single),
    )


def _mix(own: Floats | Singles, prior: Floats, share: float | Floats) -> Floats:
    mixed: Floats = share * own + (1 - share) * prior
    return mixed
