"""Replays measured outcomes through the gateway's own policy, at every price from 0 up.

It answers the question of a user whose model was never measured: does the gateway ever do worse than one
fixed thinking budget at the same tokens?
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gateway.config.settings import Settings
from gateway.routing.bounds import Bound, Bounds
from gateway.routing.policy import choose
from router_model.allocation import value
from router_model.arrays import Floats, Ints
from router_model.head import Head
from router_model.predictor import Prediction, TierLength
from router_model.training.outcomes import OutcomeTable
from router_model.training.prior import Ladder

DEFAULT_PRICE = float(Settings.model_fields["price"].default)
_PRICES = np.unique([0.0, DEFAULT_PRICE, *np.geomspace(1e-4, 1e4, 161)])

FEW_PROMPTS = 300
"""Number of prompts below which a measured share of right answers is known to two points only."""
LOSS, FEW_LOSS = 0.01, 0.02
"""How far the policy may fall below the line through the fixed budgets; the second, of few prompts."""
WORTH = 0.02
"""How far its value at the default price may fall below that of the best fixed budget."""
FACTOR = 1.5
"""By what factor the mean estimate of the tokens may miss those used."""

_NEVER_MEASURED = "a model that was never measured"
_ANSWER = 4096  # room for the answer, as in the tiers of the model families


class PricePoint(NamedTuple):
    """What the policy does at one price."""

    price: float
    tokens: float
    """Mean completion tokens."""
    accuracy: float
    """Share of right answers."""


class FixedBudget(NamedTuple):
    """What one thinking budget for all prompts does."""

    tier: str
    tokens: float
    accuracy: float
    predicted: float
    """Mean completion tokens as the head expects them."""


@dataclass(frozen=True)
class PriceSweep:
    """The replay of one ladder."""

    table: str
    prompts: int
    points: tuple[PricePoint, ...]
    """By price, from 0 to where every prompt gets the cheapest tier."""
    fixed: tuple[FixedBudget, ...]

    @property
    def token_ratio(self) -> float:
        """Predicted over used tokens: the geometric mean over the fixed budgets."""
        return float(np.exp(np.mean([np.log(each.predicted / each.tokens) for each in self.fixed])))

    def line(self, tokens: float) -> float:
        """Right answers at these tokens on the line through the fixed budgets."""
        fixed = sorted(self.fixed, key=lambda each: each.tokens)
        return float(np.interp(tokens, [each.tokens for each in fixed], [each.accuracy for each in fixed]))

    @property
    def worst(self) -> PricePoint:
        """The point that lies farthest below the line."""
        return min(self.points, key=lambda point: point.accuracy - self.line(point.tokens))

    @property
    def loss(self) -> float:
        """How far that is; negative if all points lie above the line."""
        return self.line(self.worst.tokens) - self.worst.accuracy

    @property
    def default_loss(self) -> float:
        """By how much the best fixed budget's value exceeds the policy's, both at the default price."""
        own = next(point for point in self.points if point.price == DEFAULT_PRICE)
        best = max(value(each.accuracy, each.tokens, DEFAULT_PRICE) for each in self.fixed)
        return best - value(own.accuracy, own.tokens, DEFAULT_PRICE)

    def record(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "table": self.table,
            "prompts": self.prompts,
            "points": [point._asdict() for point in self.points],
            "fixed": [each._asdict() for each in self.fixed],
            "token_ratio": self.token_ratio,
            "loss": self.loss,
            "default_loss": self.default_loss,
        }


def sweep_prices(head: Head, ladder: Ladder, model: str = _NEVER_MEASURED) -> PriceSweep:
    """Replay a table with the head as deployed, by default for a model that it was not measured on."""
    table = ladder.measured
    tiers = [
        TierLength(name, round(budget), _ANSWER)
        for name, budget in zip(table.tiers, ladder.lengths.tolist(), strict=True)
    ]
    predictions = [head.predict(prompt, model, tiers) for prompt in table.prompts]
    predicted = np.mean([each.tokens for each in predictions], axis=0)
    fixed = zip(
        table.tiers,
        table.tokens.mean(axis=0).tolist(),
        table.correct.mean(axis=0).tolist(),
        predicted.tolist(),
        strict=True,
    )
    points = tuple(_points(table, predictions, len(tiers)))
    return PriceSweep(table.name, len(table), points, tuple(FixedBudget(*each) for each in fixed))


def _points(table: OutcomeTable, predictions: Sequence[Prediction], count: int) -> Iterator[PricePoint]:
    bounds = Bounds(ceiling=Bound(count - 1, "client_ceiling"))
    rows = np.arange(len(table))
    for price in _PRICES.tolist():
        chosen: Ints = np.array([choose(bounds, each, price).index for each in predictions], np.int64)
        tokens: Floats = table.tokens[rows, chosen]
        yield PricePoint(price, float(tokens.mean()), float(table.correct[rows, chosen].mean()))
        if price >= DEFAULT_PRICE and not chosen.any():
            return


def faults(swept: PriceSweep, *, plain: bool) -> Iterator[str]:
    """Why a head must not decide for models that it was not measured on, judged by this replay.

    plain: the cheapest tier does not think, so that the default price can be judged.
    """
    allowed = FEW_LOSS if swept.prompts < FEW_PROMPTS else LOSS
    if swept.loss > allowed:
        yield (
            f"{swept.table}: {100 * swept.loss:.1f} points below the fixed thinking budgets at price"
            f" {swept.worst.price:g}; {100 * allowed:.0f} are allowed"
        )
    if plain and swept.default_loss > WORTH:
        yield (
            f"{swept.table}: at the default price {DEFAULT_PRICE:g} the best fixed tier is worth"
            f" {swept.default_loss:.3f} more; {WORTH} is allowed"
        )
    if not 1 / FACTOR <= swept.token_ratio <= FACTOR:
        yield (
            f"{swept.table}: expects {swept.token_ratio:.2f} times the tokens that are used; a factor of"
            f" {FACTOR} is allowed"
        )
