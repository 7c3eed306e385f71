"""Our own methods behind the seam that all share: the head, fine-tuned or not, and the IBPO policies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from router_model.arrays import Floats
from router_model.encoders.base import Encoder
from router_model.encoders.ngrams import DENSE, HASHED
from router_model.evaluation import ibpo
from router_model.evaluation.baselines import Estimates, Method
from router_model.head import Head
from router_model.head_parts import Curves
from router_model.training import train
from router_model.training.outcomes import OutcomeTable

SHIPPED = "head"
"""The method behind `thinkmeter train` and the shipped heads."""


@lru_cache(maxsize=32)
def _remembered(content: _Content) -> train.Trained:
    return train.fit([content.table], train.Settings(seed=content.seed), encoder=content.encoder)


@dataclass(frozen=True)
class _Content:
    """A table and a seed; equal where the prompts and outcomes are, so that methods share one training."""

    table: OutcomeTable
    seed: int
    encoder: Encoder

    def _key(self) -> tuple[object, ...]:
        table = self.table
        return (
            table.name,
            table.prompts,
            table.tiers,
            self.seed,
            id(self.encoder),
            table.correct.tobytes(),
            table.tokens.tobytes(),
        )

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Content) and self._key() == other._key()


def trained(table: OutcomeTable, seed: int, encoder: Encoder = HASHED) -> train.Trained:
    """A head trained on one table, remembered: all our methods begin with it."""
    return _remembered(_Content(table, seed, encoder))


@dataclass(frozen=True)
class FittedHead:
    """Estimates of a head's one set of curves, corrected or plain."""

    head: Head
    plain: Curves

    def estimate(self, table: OutcomeTable) -> Estimates:
        """See `baselines.Estimator`."""
        return self._by(next(iter(self.head.sets.values())), table)

    def uncalibrated(self, table: OutcomeTable) -> Estimates:
        """The same without the corrections learnt from cross-fitted predictions."""
        return self._by(self.plain, table)

    def _by(self, curves: Curves, table: OutcomeTable) -> Estimates:
        columns = [curves.tiers.index(tier) for tier in table.tiers]
        correct, tokens = curves.outcomes(self.head.see(table.prompts))
        return Estimates(correct[:, columns], tokens[:, columns])


@dataclass(frozen=True)
class HeadMethod:
    """Outcome regression as the gateway serves it; `joint` adds the fine-tuning for decisions."""

    name: str = SHIPPED
    joint: bool = False
    encoder: Encoder = HASHED

    def fit(self, table: OutcomeTable, seed: int) -> FittedHead:
        """Learn from one table."""
        found = trained(table, seed, self.encoder)
        head = found.head
        if self.joint:
            curves = ibpo.fine_tuned(found, seed)
            head = replace(head, sets={curves.name: curves})
        return FittedHead(head, found.plain[table.name])


@lru_cache(maxsize=4)
def _latents(head: Head, prompts: tuple[str, ...]) -> Floats:
    """z of each prompt, [N, R]; asked for at every price."""
    first = len(head.trunk.hidden_bias)
    return head.see(prompts)[:, first:-DENSE].astype(float)


@dataclass(frozen=True)
class FittedPolicy:
    """A policy on the latents of a head."""

    head: Head
    policy: ibpo.Priced | ibpo.Published

    def choose(self, table: OutcomeTable, price: float) -> Floats:
        """See `baselines.Chooser`."""
        return self.policy.choose(_latents(self.head, table.prompts), price)


@dataclass(frozen=True)
class PolicyMethod:
    """A policy learnt from allocations, on the same latents as the head."""

    name: str
    learn: Callable[[train.Trained, int], ibpo.Priced | ibpo.Published]

    def fit(self, table: OutcomeTable, seed: int) -> FittedPolicy:
        """Learn from one table."""
        found = trained(table, seed)
        return FittedPolicy(found.head, self.learn(found, seed))


def methods() -> dict[str, Method]:
    """All of them, by name."""
    every: tuple[Method, ...] = (
        HeadMethod(),
        HeadMethod("head, joint objective", joint=True),
        PolicyMethod("IBPO, priced", ibpo.priced),
        PolicyMethod("IBPO, as published", ibpo.published),
    )
    return {method.name: method for method in every}
