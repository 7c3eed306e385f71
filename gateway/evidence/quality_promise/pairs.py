"""From shadow pairs to what the promise of quality is tested on, and which pairs it asks for. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from msgspec import Struct

from gateway.config.evidence import QualitySettings
from gateway.routing.decision import Decision, Rungs
from router_model.allocation import best_tier
from router_model.promise import (
    STEPS,
    Certificate,
    ComparedRungs,
    PromiseTerms,
    certify_price,
    price_grid,
)

FIXED = frozenset({"uncertified", "holdout"})
"""Reasons of decisions that did not depend on the price."""
_OTHERS = frozenset({"explored", "budget", "context", "pinned"})
"""Reasons of decisions whose rung was not that of the price."""
_rungs = msgspec.json.Decoder(Rungs)


class GradedPair(Struct, frozen=True):
    """A shadow pair that was graded, with what was decided."""

    reason: str
    price: float
    rungs: bytes
    """JSON of `Rungs`."""
    served_rung: int
    shadow_rung: int
    served_score: float
    shadow_score: float


class PromiseFound(Struct, frozen=True):
    """What is certified for one model."""

    model: str
    price: float | None
    """The certified price; None if none is."""
    wanted: float
    """The configured price."""
    pairs: int
    """Graded pairs of the head that count."""
    loss: float | None
    """The mean loss at the first price that is not certified, or at the last one; None without pairs."""
    missing: int | None
    """About how many more pairs the first price needs that is not certified; None if no number is enough."""


def asked_instead(decision: Decision, against: int) -> int | None:
    """The rung that a request with a fixed rung is asked at: that of a price drawn from the grid.

    The grid ends at the price that the decision names. The draw follows from the decision's ID, which is
    random. None if the request got another rung, or no price has another one.

    against: the rung of the promise, within the bounds of the request.
    """
    if decision.reason not in FIXED or decision.rung != against:
        return None
    rungs = decision.rungs
    eligible = range(rungs.lowest, rungs.highest + 1)
    asked = [best_tier(rungs.correct, rungs.tokens, price, eligible) for price in price_grid(decision.price)]
    apart = [rung for rung in asked if rung != against]
    if not apart:
        return None
    return apart[int(int(decision.id[-8:], 16) / 2**32 * len(apart))]


def compared_rungs(
    pairs: Iterable[GradedPair], thinking: Sequence[int], against: int, *, priced: bool
) -> ComparedRungs:
    """The pairs that show the rung of the promise beside another one, on the usual ladder of the model.

    thinking: of that ladder. against: the position of the promised tier on it. priced: also those whose
    client got the rung of the price; they say nothing about other prices.
    """
    rows = [row for pair in pairs if (row := _row(pair, tuple(thinking), against, priced=priced))]
    count = len(thinking)
    eligible = np.zeros((len(rows), count))
    for i, (rungs, *_) in enumerate(rows):
        eligible[i, rungs.lowest : rungs.highest + 1] = 1
    return ComparedRungs(
        correct=np.array([rungs.correct for rungs, *_ in rows], float).reshape(-1, count),
        tokens=np.array([rungs.tokens for rungs, *_ in rows], float).reshape(-1, count),
        eligible=eligible,
        against=np.array([row[1] for row in rows], np.int64),
        seen=np.array([row[2] for row in rows], np.int64),
        drawn_from=np.array([row[3] for row in rows], float).reshape(-1, STEPS),
        loss=np.array([row[4] for row in rows], float),
    )


def promise_found(
    model: str,
    pairs: Iterable[GradedPair],
    ladder: Sequence[int],
    against: int,
    *,
    wanted: float,
    quality: QualitySettings,
) -> PromiseFound:
    """What the pairs of the model and its head prove. ladder: the thinking tokens of its rungs."""
    priced = quality.until == "price"
    compared = compared_rungs(pairs, ladder, against, priced=priced)
    found = certificate(compared, wanted, quality)
    last = found.tested[-1]
    return PromiseFound(
        *(model, found.price, wanted, len(compared.loss)),
        None if np.isnan(last.loss) else last.loss,
        last.missing,
    )


def certificate(compared: ComparedRungs, wanted: float, quality: QualitySettings) -> Certificate:
    """Test the prices up to the configured one; under `until: price` that one alone."""
    prices = (wanted,) if quality.until == "price" else price_grid(wanted)
    return certify_price(compared, prices, PromiseTerms(quality.loses_at_most, quality.sure))


def told(found: PromiseFound, quality: QualitySettings) -> str:
    """What is certified, in a sentence."""
    if found.price is not None and found.price >= found.wanted:
        return f"quality: {found.model}: certified at the configured price {found.wanted:g}"
    seen = "" if found.loss is None else f", {found.loss:+.1%} lost in what was seen"
    counted = f"{found.pairs:,} graded pairs{seen}"
    more = (
        "at what was seen, no number of pairs would certify more"
        if found.missing is None
        else f"about {found.missing:,} more graded pairs are needed"
    )
    if found.price is not None:
        reached = f"certified up to price {found.price:g} of {found.wanted:g}"
        return f"quality: {found.model}: {reached}; {more} ({counted})"
    acts = quality.against if quality.until == "safe" else "the configured price"
    return f"quality: {found.model}: not certified, so that {acts} acts: {more} ({counted})"


def _row(
    pair: GradedPair, thinking: tuple[int, ...], against: int, *, priced: bool
) -> tuple[Rungs, int, int, tuple[float, ...], float] | None:
    """Estimates, promised rung, other rung, the prices that it was drawn from, and the loss."""
    try:
        rungs = _rungs.decode(pair.rungs)
    except msgspec.DecodeError:
        return None
    if rungs.thinking != thinking:
        return None
    against = min(max(against, rungs.lowest), rungs.highest)
    loss = pair.served_score - pair.shadow_score
    if pair.reason in FIXED:
        if pair.served_rung != against:
            return None
        grid = price_grid(pair.price)
        return rungs, against, pair.shadow_rung, grid * (STEPS // len(grid)), loss
    if not priced or pair.reason in _OTHERS or pair.shadow_rung != against:
        return None
    return rungs, against, pair.served_rung, (pair.price,) * STEPS, -loss
