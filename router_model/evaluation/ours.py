"""Our own methods: the head, fine-tuned or not, and the IBPO policies."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from router_model.arrays import Floats
from router_model.encoders.base import Encoder
from router_model.encoders.ngrams import DENSE, HASHED
from router_model.evaluation import ibpo
from router_model.evaluation.methods import Estimates
from router_model.head import Head
from router_model.head_parts import Curves
from router_model.training import train
from router_model.training.outcomes import OutcomeTable

SHIPPED = "head"
"""The method behind `thinkmeter train` and the shipped heads."""


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
    """Outcome regression as the gateway serves it. `joint` adds fine-tuning for decisions."""

    name: str = SHIPPED
    joint: bool = False
    encoder: Encoder = HASHED

    def fit(self, table: OutcomeTable, seed: int) -> FittedHead:
        """Learn from one table."""
        start = trained(table, seed, self.encoder)
        head = start.head
        if self.joint:
            curves = ibpo.fine_tuned(start, seed)
            head = replace(head, sets={curves.name: curves})
        return FittedHead(head, start.plain[table.name])


@lru_cache(maxsize=4)
def _latents(head: Head, prompts: tuple[str, ...]) -> Floats:
    """z of each prompt, [N, R]. Cached, because it is needed at every price."""
    first = len(head.trunk.hidden_bias)
    return head.see(prompts)[0][:, first:-DENSE].astype(float)


@dataclass(frozen=True)
class FittedPolicy:
    """A policy on a head's latents."""

    head: Head
    policy: ibpo.Priced | ibpo.Published

    def choose(self, table: OutcomeTable, price: float) -> Floats:
        """See `methods.Chooser`."""
        return self.policy.choose(_latents(self.head, table.prompts), price)


@dataclass(frozen=True)
class PolicyMethod:
    """A policy learnt from allocations, on the head's latents."""

    name: str
    learn: Callable[[train.Trained, int], ibpo.Priced | ibpo.Published]

    def fit(self, table: OutcomeTable, seed: int) -> FittedPolicy:
        """Learn from one table."""
        start = trained(table, seed)
        return FittedPolicy(start.head, self.learn(start, seed))
