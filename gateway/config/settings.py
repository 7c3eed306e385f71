"""The whole configuration, and the checks across its sections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import (
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

from gateway.config.access import AdminSettings, ConsoleSettings, Key
from gateway.config.base import ModelName, Section
from gateway.config.budgets import Budget, Queue, RedisSettings, Reservations
from gateway.config.costs import CostSettings
from gateway.config.evidence import (
    PREVIOUS_HEAD,
    DriftSettings,
    EvidenceSettings,
    HoldoutSettings,
    QualitySettings,
    ShadowSettings,
)
from gateway.config.forwarding import ForwardedHeader
from gateway.config.models import (
    BreakerSettings,
    EncoderSettings,
    Failover,
    Family,
    Health,
    Model,
    Tier,
    Timeouts,
    tiers_with_efforts,
)
from gateway.config.rules import Rule
from gateway.config.server import HttpLimits, MetricsSettings, ServerSettings

BASELINE = "baseline"
"""The value of `head` that selects the heuristic instead of a trained head."""
SettingPath = tuple[str | int, ...]
"""The path of a setting in the file: ("models", "qwen3-8b", "floor")."""


def _wrong(at: SettingPath, message: str) -> PydanticCustomError:
    """An error about two settings that contradict each other, reported at one of them."""
    return PydanticCustomError("reference", "{message}", {"at": at, "message": message})


class Settings(Section):
    """The whole configuration. Immutable: a reload builds new settings."""

    server: ServerSettings = Field(default_factory=ServerSettings)
    limits: HttpLimits = Field(default_factory=HttpLimits)
    timeouts: Timeouts = Field(default_factory=Timeouts)
    health: Health = Field(default_factory=Health)
    breaker: BreakerSettings = Field(default_factory=BreakerSettings)
    retries: int = Field(
        2, ge=0, le=10, description="Further attempts on other replicas, before the first byte."
    )
    failover: Failover = Field(default_factory=Failover)
    affinity_header: str | None = Field(
        None, description="Requests with the same value of this header go to the same replica."
    )
    forward_headers: list[ForwardedHeader] = Field(
        default_factory=list, description="Further headers of clients that pass to the backends."
    )
    client_scheduling: Literal["drop", "refuse", "keep"] | None = Field(
        None,
        description="What happens to fields that schedule or place a request; default `drop` with `keys`.",
    )
    price: float = Field(
        0.02, ge=0, le=1_000, description="Probability of a right answer that 1,000 tokens must buy."
    )
    head: str = Field(
        "general",
        min_length=1,
        description="The trained head: `general`, `tiny`, a directory, or `baseline` (length and keywords).",
    )
    encoder: EncoderSettings | None = Field(
        None, description="The encoder of a head that was trained with embeddings."
    )
    exploration: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Share of adaptive requests whose rung is drawn at random; none while a budget is tight.",
    )
    families: dict[str, Family] = Field(
        default_factory=dict, description="Entries added to the built-in table of model families."
    )
    models: dict[ModelName, Model] = Field(min_length=1, description="The models that clients may use.")
    rules: list[Rule] = Field(default_factory=list, description="Floors, ceilings and fixed tiers.")
    keys: list[Key] = Field(
        default_factory=list, description="API keys; without any, everybody may use the gateway."
    )
    console: ConsoleSettings = Field(default_factory=ConsoleSettings)
    budgets: list[Budget] = Field(default_factory=list, description="Limits on tokens over time.")
    reservations: Reservations = Field(default_factory=Reservations)
    queue: Queue = Field(default_factory=Queue)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    admin: AdminSettings = Field(default_factory=AdminSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    evidence: EvidenceSettings | None = Field(
        None, description="The store of evidence from the gateway's own traffic; by default nothing is kept."
    )
    shadow: ShadowSettings | None = Field(None, description="Requests that are asked again, to compare.")
    holdout: HoldoutSettings | None = Field(None, description="Requests that get a fixed tier, to compare.")
    drift: DriftSettings | None = Field(
        None, description="Watches whether the head's estimates hold; by default nobody does."
    )
    quality: QualitySettings | None = Field(
        None, description="How many right answers may be lost; by default nothing is promised."
    )
    costs: CostSettings = Field(default_factory=CostSettings)

    def tiers_of(self, model: Model) -> dict[str, Tier]:
        """The tiers of a model, cheapest first, with all efforts filled in."""
        return tiers_with_efforts(model.tiers or self.families[model.family].tiers)

    @model_validator(mode="after")
    def _references_exist(self) -> Self:
        for name, model in self.models.items():
            at: SettingPath = ("models", name)
            if model.family not in self.families:
                known = ", ".join(sorted(self.families))
                raise _wrong((*at, "family"), f"unknown family {model.family!r}; known: {known}")
            if not self.tiers_of(model):
                raise _wrong((*at, "tiers"), "the family has no tiers, so the model needs some")
            self._check_tier((*at, "floor"), model.floor, [name])
            called = model.replica_names(name)
            for i, replica in enumerate(called):
                if replica in called[:i]:
                    raise _wrong((*at, "replicas", i, "name"), f"two replicas are called {replica!r}")
        names = self._check_names()
        for i, key in enumerate(self.keys):
            self._check_models(("keys", i, "models"), key.models)
            self._check_bounds(("keys", i), key.models, {"floor": key.floor, "ceiling": key.ceiling})
            self._check_order(("keys", i, "floor"), key, key.models)
        for i, rule in enumerate(self.rules):
            bounds = {"tier": rule.tier, "floor": rule.floor, "ceiling": rule.ceiling}
            self._check_models(("rules", i, "when", "model"), rule.when.model)
            self._check_bounds(("rules", i), rule.when.model, bounds)
            self._check_order(("rules", i, "floor"), rule, rule.when.model)
            unknown = sorted(set(rule.when.key or ()) - names)
            if unknown:
                raise _wrong(("rules", i, "when", "key"), f"unknown key {', '.join(unknown)}")
        return self

    @model_validator(mode="after")
    def _evidence_is_possible(self) -> Self:
        if self.holdout is not None:
            if self.evidence is None:
                raise _wrong(("holdout",), "needs `evidence: {}`, where its results are kept")
            self._check_tier(("holdout", "policy"), self.holdout.policy, None)
        if self.drift is not None and self.evidence is None:
            raise _wrong(("drift",), "needs `evidence: {}`, from which it is told")
        if self.drift is not None and self.drift.on_drift == "prior" and self.head == BASELINE:
            raise _wrong(("drift", "on_drift"), "the baseline has no prior: use `raise_floor` or `alarm`")
        shadow = self.shadow
        if shadow is not None:
            if self.evidence is None:
                raise _wrong(("shadow",), "needs `evidence: {}`, where its results are kept")
            if shadow.against != PREVIOUS_HEAD and not shadow.against.isdecimal():
                self._check_tier(("shadow", "against"), shadow.against, None)
        return self

    @model_validator(mode="after")
    def _promise_has_pairs(self) -> Self:
        quality, shadow = self.quality, self.shadow
        if quality is None:
            return self
        if shadow is None or not shadow.share:
            raise _wrong(("quality",), "needs `shadow`, whose pairs show what is lost")
        self._check_tier(("quality", "against"), quality.against, None)
        if shadow.against != quality.against:
            text = f"must be that of `shadow`, {shadow.against!r}, which the pairs compare with"
            raise _wrong(("quality", "against"), text)
        return self

    @model_validator(mode="after")
    def _budgets_have_holders(self) -> Self:
        names = [budget.name for budget in self.budgets]
        for i, budget in enumerate(self.budgets):
            if budget.name in names[:i]:
                raise _wrong(("budgets", i, "name"), f"two budgets are called {budget.name!r}")
            known = self.holders(budget.scope)
            if not known:
                raise _wrong(("budgets", i, "scope"), f"no {budget.scope} is configured")
            if budget.scope == "global" and budget.match is not None:
                raise _wrong(("budgets", i, "match"), "a global budget is for everybody")
            unknown = sorted(set(budget.match or ()) - set(known))
            if unknown:
                raise _wrong(("budgets", i, "match"), f"unknown {budget.scope} {', '.join(unknown)}")
        return self

    @property
    def counts_tokens(self) -> bool:
        """Whether tokens are counted under any budget, which needs Redis."""
        return bool(self.budgets) or self.shadow is not None

    @property
    def console_keys(self) -> tuple[str, ...]:
        """Digests of the keys that open the console: its own and the admin's. Empty if no key is needed."""
        if self.console.hash is None and not self.keys:
            return ()
        return tuple(digest for digest in (self.console.hash, self.admin.hash) if digest is not None)

    @property
    def serves_console(self) -> bool:
        """Whether the console is served: as configured, else if it needs no key or there is a key for it."""
        by_default = not self.keys or bool(self.console_keys)
        return by_default if self.console.enabled is None else self.console.enabled

    @property
    def console_is_open(self) -> bool:
        """Whether everybody may see the console."""
        return self.serves_console and not self.console_keys

    def holders(self, scope: str) -> tuple[str, ...]:
        """The names that may hold a budget of this scope: keys, teams or models, or "*" for everybody."""
        named: dict[str, Iterable[str]] = {
            "global": ["*"],
            "key": (key.name for key in self.keys),
            "team": (key.team for key in self.keys if key.team),
            "model": self.models,
        }
        return tuple(dict.fromkeys(named[scope]))

    def _check_names(self) -> set[str]:
        """The names of the keys, which differ, as do their secrets."""
        names: set[str] = set()
        owners: dict[str, str] = {}
        for i, key in enumerate(self.keys):
            if key.name in names:
                raise _wrong(("keys", i, "name"), f"two keys share the same name, {key.name!r}")
            if twin := owners.get(key.hash):
                raise _wrong(("keys", i), f"the keys {twin!r} and {key.name!r} share the same secret")
            names.add(key.name)
            owners[key.hash] = key.name
        return names

    def _check_models(self, at: SettingPath, models: list[str] | None) -> None:
        unknown = sorted(set(models or ()) - set(self.models))
        if unknown:
            raise _wrong(at, f"unknown model {', '.join(unknown)}; known: {', '.join(self.models)}")

    def _check_bounds(self, at: SettingPath, models: list[str] | None, bounds: dict[str, str | None]) -> None:
        for field, tier in bounds.items():
            self._check_tier((*at, field), tier, models)

    def _check_order(self, at: SettingPath, bounds: Key | Rule, models: list[str] | None) -> None:
        """A floor must not be above the ceiling beside it, in any model that both apply to."""
        if bounds.floor is None or bounds.ceiling is None:
            return
        for name in self.models if models is None else models:
            tiers = list(self.tiers_of(self.models[name]))
            if len(tiers) > 1 and tiers.index(bounds.floor) > tiers.index(bounds.ceiling):
                raise _wrong(at, f"the floor {bounds.floor!r} is above the ceiling {bounds.ceiling!r}")

    def _check_tier(self, at: SettingPath, tier: str | None, models: list[str] | None) -> None:
        """A bound must name a tier of every model that it applies to, except for models with one tier."""
        for name in models or self.models:
            tiers = self.tiers_of(self.models[name])
            if tier is not None and len(tiers) > 1 and tier not in tiers:
                raise _wrong(at, f"model {name!r} has no tier {tier!r}, only {', '.join(tiers)}")
