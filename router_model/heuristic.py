"""Difficulty from prompt length and keywords: a transparent fallback while no trained head is configured.

It is also a simple baseline for trained heads. Keyword scorers fail on exactly the prompts that need
reasoning, so its estimates are guesses, not measurements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from router_model.allocation import PriceTable
from router_model.predictor import Prediction, TierLength, ranks

_SCANNED = 20_000  # characters read at most, to bound the worst case
_HARD_WORDS = frozenset(
    "prove proof derive integral derivative theorem equation optimise optimize algorithm complexity debug "
    "refactor step many probability remainder modulo mod solve calculate compute minimum maximum sum total "
    "average percent each per if then therefore".split()
)
_EASY_WORDS = frozenset("hi hello hey thanks thank translate summarise summarize capital rewrite".split())
_KNOWN_WORDS = _HARD_WORDS | _EASY_WORDS
_SYMBOLS = "=<>^+*×∑∫√≤≥"
_ASCII_SYMBOLS = "=<>^+*"


def difficulty(prompt: str) -> float:
    """A score in (0, 1): log length, distinct keywords and mathematical symbols through a logistic curve."""
    text = prompt[:_SCANNED].lower()
    words = _KNOWN_WORDS.intersection(text.split())
    symbols = _ASCII_SYMBOLS if text.isascii() else _SYMBOLS
    hard = min(len(words & _HARD_WORDS) + sum(map(text.__contains__, symbols)), 8)
    easy = min(len(words & _EASY_WORDS), 4)
    score = 0.35 * math.log1p(len(text) / 40) + 0.45 * hard - 0.8 * easy - 1.3
    return 1 / (1 + math.exp(-score))


@lru_cache(maxsize=1024)
def _exponents(tiers: tuple[TierLength, ...]) -> tuple[float, ...]:
    """1 + 2·r for each rung, where r is its rank among the named tiers as a share of the highest rank."""
    found = ranks(tiers)
    top = max(found[-1], 1.0)
    return tuple(1 + 2 * rank / top for rank in found)


class HeuristicBaseline:
    """P(right) = 1 − d^(1 + 2·r) for the rung at relative rank r in [0, 1], and thinking in proportion to d.

    With this formula thinking gains nothing on trivial prompts (d → 0) and on hopeless ones (d → 1).
    """

    version = "baseline-heuristic-1"

    def predict(self, prompt: str, model: str, tiers: Sequence[TierLength]) -> Prediction:
        """See `Predictor.predict`; `model` is ignored."""
        hardness = difficulty(prompt)
        correct = tuple(1 - hardness**exponent for exponent in _exponents(tuple(tiers)))
        tokens = tuple(hardness * tier.thinking + 0.25 * tier.answer for tier in tiers)
        return Prediction(hardness, correct, tokens)

    def price_table(self, model: str, tiers: Sequence[TierLength]) -> PriceTable | None:
        """None: nothing was measured."""
        return None
