"""How often the promise of quality is broken, and how many pairs it takes, over made deployments.

Run `python -m tests.bench.promise [DEPLOYMENTS]`.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import numpy as np

from router_model.arrays import Floats, Ints
from router_model.promise import (
    STEPS,
    ComparedRungs,
    PromiseTerms,
    evidence_over_time,
    losses_at,
    price_grid,
)

TERMS = PromiseTerms(0.02, 0.95)
PRICE = 0.08
PAIRS = 10_000
"""Graded pairs of one deployment."""
LOOK = 100
"""Pairs between two looks."""
ALARM = 150
"""Pairs after which drift is found in the median."""
_PROMPTS = 2_000
_BUDGETS = np.array([50.0, 300.0, 800.0, 2_000.0])
_TOP = len(_BUDGETS) - 1


class Deployment(NamedTuple):
    """All prompts of one deployment, and the truth about them."""

    right: Floats
    """P(right), [N, T]."""
    correct: Floats
    """P(right) as the head says, [N, T]."""
    tokens: Floats
    rungs: Ints
    """The rung at each price of the grid, [N, K]."""

    def loss(self) -> Floats:
        """The mean loss at each price of the grid, [K]."""
        rows = np.arange(len(self.right))[:, None]
        return np.asarray((self.right[:, [_TOP]] - self.right[rows, self.rungs]).mean(axis=0))


def deployment(draw: np.random.Generator, *, at_limit: bool = False) -> Deployment:
    """Prompts and a head that errs by an unknown amount, in level, in slope and by prompt.

    at_limit: the truth is shifted so that the safest price loses just more than is promised.
    """
    hard = draw.normal(0, 2.5, _PROMPTS)
    gain = draw.exponential(draw.uniform(0.1, 1.2), _PROMPTS)
    shape = np.array([0.0, 0.8, 1.5, 2.0])
    logits = (draw.uniform(-1, 3) - hard)[:, None] + gain[:, None] * shape
    said = draw.uniform(0.4, 1.6) * logits + draw.normal(0, 1) + draw.normal(0, 0.5, (_PROMPTS, 1))
    said = said + draw.uniform(-0.5, 1.0) * shape
    correct, right, tokens = _share(said), _share(logits), np.tile(_BUDGETS, (_PROMPTS, 1))
    worth = correct[:, :, None] - tokens[:, :, None] * np.array(price_grid(PRICE)) / 1_000
    rungs = worth.argmax(axis=1)
    paired = (rungs != _TOP).any(axis=1)  # the others lose nothing
    if not (rungs[:, 0] != _TOP).mean() > TERMS.loses_at_most:  # too few to lose so much
        return deployment(draw, at_limit=at_limit)
    made = Deployment(*(column[paired] for column in (right, correct, tokens, rungs)))
    return _moved(made) if at_limit else made


def _moved(made: Deployment) -> Deployment:
    """The same, but at the safest price, which is tested first, the loss is 1.001 times the limit."""
    at = 0
    rows = np.arange(len(made.right))
    top, own = made.right[:, _TOP].copy(), made.right[rows, made.rungs[:, at]]
    differs = made.rungs[:, at] != _TOP
    if not differs.any():
        return made
    share = 1.001 * TERMS.loses_at_most / differs.mean()
    # P(right) at `against` follows that of the rung, so that the mean loss is where it should be
    low = np.clip(own, 0, max(1 - share, 0))
    right = made.right.copy()
    right[rows[differs], made.rungs[differs, at]] = low[differs]
    right[differs, _TOP] = np.minimum(low[differs] + share, 1)
    right[~differs, _TOP] = top[~differs]
    return made._replace(right=right)


def pairs_of(made: Deployment, right: Floats, pairs: int, draw: np.random.Generator) -> ComparedRungs:
    """Graded pairs, as they arise while the safe policy acts: the other rung is that of a drawn price."""
    row = draw.integers(0, len(right), pairs)
    order = draw.random((pairs, STEPS)) + (
        made.rungs[row] == _TOP
    )  # prices whose rung is `against` come last
    seen = made.rungs[row, order.argmin(axis=1)]
    top, other = (draw.random(pairs) < right[row, rung] for rung in (np.full(pairs, _TOP), seen))
    return ComparedRungs(
        *(made.correct[row], made.tokens[row], np.ones((pairs, _TOP + 1)), np.full(pairs, _TOP), seen),
        *(np.tile(price_grid(PRICE), (pairs, 1)), top.astype(float) - other),
    )


def certified_at(pairs: ComparedRungs) -> list[int | None]:
    """For each price of the grid the pairs after which a daily look first certifies it; None if never."""
    found: list[int | None] = []
    before = 0
    for price in price_grid(PRICE):
        evidence = evidence_over_time(losses_at(pairs, price), TERMS.loses_at_most, STEPS)
        reached = np.flatnonzero(evidence >= TERMS.needed)
        if not len(reached):
            return found + [None] * (STEPS - len(found))
        before = max(before, -(-int(reached[0] + 1) // LOOK) * LOOK)
        found.append(before)
    return found


def broken(made: Deployment, right: Floats, at: list[int | None]) -> bool:
    """Whether a price that was certified loses more than is promised."""
    loss = made._replace(right=right).loss()
    return any(place is not None and loss[i] > TERMS.loses_at_most for i, place in enumerate(at))


def deployments(number: int, *, at_limit: bool) -> str:
    """What happens in deployments that do not change."""
    draw = np.random.default_rng(int(at_limit))
    wrong, kept, first, last = 0, 0, [], []
    for _ in range(number):
        made = deployment(draw, at_limit=at_limit)
        at = certified_at(pairs_of(made, made.right, PAIRS, draw))
        wrong += broken(made, made.right, at)
        possible = bool((made.loss() <= TERMS.loses_at_most).all())
        kept += possible
        if at[0] is not None:
            first.append(at[0])
        if possible and at[-1] is not None:
            last.append(at[-1])
    usual = f"first price after {np.median(first):.0f} pairs in the median" if first else "none certified"
    reached = f"the configured one certified in {len(last)} of {kept} where it is safe"
    more = f", after {np.median(last):.0f} pairs" if last else ""
    return f"broken in {wrong / number:.1%}; {len(first) / number:.0%} certified, {usual}; {reached}{more}"


def drifting(number: int) -> str:
    """What happens where answers below `against` become worse at some time, and the alarm starts anew."""
    draw = np.random.default_rng(2)
    wrong, exposed, certified = 0, [], 0
    for _ in range(number):
        made = deployment(draw)
        fallen = made.right.copy()
        fallen[:, :_TOP] = np.maximum(fallen[:, :_TOP] - 0.1, 0)
        change = int(draw.integers(LOOK, PAIRS))
        alarm = change + int(draw.exponential(ALARM / np.log(2))) + 1
        early, between = (
            pairs_of(made, right, n, draw) for right, n in ((made.right, change), (fallen, alarm - change))
        )
        mixed = ComparedRungs._make(np.concatenate(both) for both in zip(early, between, strict=True))
        before = certified_at(mixed)
        ill = made._replace(right=fallen).loss() > TERMS.loses_at_most
        starts = [max(at, change) for at, bad in zip(before, ill, strict=True) if at is not None and bad]
        exposed.append(max(alarm - min(starts), 0) if starts else 0)
        after = certified_at(pairs_of(made, fallen, PAIRS, draw))
        false_before = [at for at in before if at is not None and at <= change]
        certified += bool(false_before)
        early_broken = broken(
            made, made.right, [at if at is not None and at <= change else None for at in before]
        )
        wrong += early_broken or broken(made, fallen, after)
    waits = np.array(exposed)
    return (
        f"broken in {wrong / number:.1%} before the fall or after the alarm; "
        f"{certified / number:.0%} certified before the fall; "
        f"between fall and alarm broken for {waits.mean():.0f} pairs in the mean"
    )


def _share(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logits)))


def answers_needed() -> str:
    """Pairs until a price is certified that loses nothing, by the share of pairs that differ."""
    draw = np.random.default_rng(3)
    found = []
    for share in (0.02, 0.05, 0.1, 0.2):
        counts = []
        for _ in range(200):
            losses = draw.choice([1.0, 0.0, -1.0], 40_000, p=[share / 2, 1 - share, share / 2])
            reached = np.flatnonzero(evidence_over_time(losses, TERMS.loses_at_most, 1.0) >= TERMS.needed)
            counts.append(int(reached[0]) + 1 if len(reached) else 40_000)
        found.append(f"{share:.0%}: {np.median(counts):.0f}")
    return "pairs needed if nothing is lost, by share that differs: " + ", ".join(found)


def main(number: int) -> None:
    print(answers_needed(), flush=True)
    print("head errs by an unknown amount:", deployments(number, at_limit=False), flush=True)
    print("the safest price loses just too much:", deployments(number, at_limit=True), flush=True)
    print("10 points fall:", drifting(number), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)
