"""Our own methods: the head, after one or both stages of training, and the IBPO policies."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from router_model.arrays import Floats
from router_model.encoders.base import Encoder
from router_model.encoders.ngrams import DENSE, HASHED
from router_model.evaluation.methods import Estimates
from router_model.head import Head
from router_model.head_parts import Curves
from router_model.training import train
from router_model.training.ibpo import DEFAULT, improve_head
from router_model.training.outcomes import OutcomeTable

SHIPPED = "head"
"""The method behind `thinkmeter train`."""

FIRST_STAGE = "head, first stage"
"""The same without IBPO."""


_KEPT = 32
_heads: dict[tuple[str, str, int], train.Trained] = {}


def trained(table: OutcomeTable, seed: int, encoder: Encoder = HASHED) -> train.Trained:
    """A head trained on one table. All our methods start from it, so it is cached."""
    key = table.content, json.dumps(dict(encoder.identity), sort_keys=True), seed
    if key not in _heads:
        if len(_heads) >= _KEPT:
            del _heads[next(iter(_heads))]
        _heads[key] = train.fit_head([table], train.TrainingSettings(seed=seed), encoder=encoder)
    return _heads[key]


@dataclass(frozen=True)
class FittedHead:
    """Estimates from a head's only set of curves."""

    head: Head
    plain: Curves
    """The curves before correction."""

    def estimate(self, table: OutcomeTable) -> Estimates:
        """See `methods.Estimator`."""
        return self._by(next(iter(self.head.sets.values())), table)

    def uncalibrated(self, table: OutcomeTable) -> Estimates:
        """See `methods.Uncalibrated`."""
        return self._by(self.plain, table)

    def _by(self, curves: Curves, table: OutcomeTable) -> Estimates:
        columns = [curves.tiers.index(tier) for tier in table.tiers]
        correct, tokens = curves.outcomes(*self.head.see(table.prompts))
        return Estimates(correct[:, columns], tokens[:, columns])


@dataclass(frozen=True)
class HeadMethod:
    """A head as the gateway serves it, by default after both stages of training."""

    name: str = SHIPPED
    objective: str | None = DEFAULT
    """Of the second stage; None for the first stage alone."""
    encoder: Encoder = HASHED

    def fit(self, table: OutcomeTable, seed: int) -> FittedHead:
        """Learn from one table."""
        start = trained(table, seed, self.encoder)
        head = start.head
        if self.objective is not None:
            head = improve_head(head, start.stages, seed, self.objective)
        return FittedHead(head, start.plain[table.name])


@lru_cache(maxsize=4)
def _latents(head: Head, prompts: tuple[str, ...]) -> Floats:
    """z of each prompt, [N, R]. Cached, because it is needed at every price."""
    first = len(head.trunk.hidden_bias)
    return head.see(prompts)[0][:, first:-DENSE].astype(float)


class LatentPolicy(Protocol):
    """A policy that reads latents."""

    def choose(self, latents: Floats, price: float) -> Floats:
        """Probability of each tier, [N, T]."""
        ...


@dataclass(frozen=True)
class FittedPolicy:
    """A policy on a head's latents."""

    head: Head
    policy: LatentPolicy

    def choose(self, table: OutcomeTable, price: float) -> Floats:
        """See `methods.Chooser`."""
        return self.policy.choose(_latents(self.head, table.prompts), price)


@dataclass(frozen=True)
class PolicyMethod:
    """A policy learnt from allocations, on the head's latents."""

    name: str
    learn: Callable[[train.Trained, int], LatentPolicy]

    def fit(self, table: OutcomeTable, seed: int) -> FittedPolicy:
        """Learn from one table."""
        start = trained(table, seed)
        return FittedPolicy(start.head, self.learn(start, seed))
