"""Routing by one configuration: which key may use which model, and which tier a request gets. No I/O."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from random import Random

from msgspec import Struct
from msgspec.structs import replace

from gateway import __version__
from gateway.config.access import Key, fingerprint, key_digest
from gateway.config.settings import Settings
from gateway.errors import InvalidApiKey, InvalidRequest, ModelNotAllowed, ModelNotFound
from gateway.http.headers import bearer
from gateway.openai_api.lengths import least_tokens
from gateway.openai_api.requests import ClientLimits
from gateway.routing import policy
from gateway.routing.bounds import Bounds, collect_bounds
from gateway.routing.call import Call, Target
from gateway.routing.constrained import constrained_ladder, unbudgeted_ladder
from gateway.routing.holdout import Arm, Holdout, fixed_choice
from gateway.routing.outline import Outline
from gateway.routing.plan import RoutingPlan
from gateway.routing.promised import Promised, held_choice
from gateway.routing.rules import Facts, RuleBook
from gateway.routing.tiers import TierLadder
from router_model.encoders.embedder import Embedder
from router_model.head import Head
from router_model.predictor import Predictor

_random = Random()  # noqa: S311 - neither decision IDs nor exploration need secrecy


class DriftValve(Struct, frozen=True):
    """The models that are treated with care, because the head's estimates for them no longer hold."""

    raised: frozenset[str] = frozenset()
    """Their floor is one tier higher."""
    prior: frozenset[str] = frozenset()
    """Their estimates come from the prior."""


CLOSED_VALVE = DriftValve()
_MOST_OUTLINES = 1024
"""Outlines remembered. Clients choose the limits, so there may be any number of different ones."""


class Router:
    """The keys, models, tiers, rules and head of one configuration. Immutable but for what it remembers."""

    def __init__(self, settings: Settings, predictor: Predictor, digest: str) -> None:
        """digest: names the configuration in every decision."""
        self._settings = settings
        self.predictor = predictor
        encoder = predictor.encoder if isinstance(predictor, Head) else None
        self.embedder = encoder if isinstance(encoder, Embedder) else None
        """The head's encoder if its embeddings must be fetched before the head can predict, else None."""
        self._rules = RuleBook(settings.rules)
        self._holdout = Holdout.of(settings.holdout) if settings.holdout else None
        self.promised = Promised.at_first(settings)
        """What the promise of quality allows; None if it does not act. Replaced while requests are served."""
        self._outlines: dict[Hashable, Outline] = {}
        self.valve = CLOSED_VALVE
        """What an alarm about the head's estimates does to its models. Replaced while requests are served."""
        self.versions = {"gateway": __version__, "config": digest, "head": predictor.version}
        self._keys = {key.hash: key for key in settings.keys}
        self.targets: dict[str, Target] = {}
        for name, model in settings.models.items():
            ladder = TierLadder.of(model, settings.tiers_of(model), settings.families[model.family])
            prices = predictor.price_table(name, ladder.lengths) if settings.budgets else None
            strict = constrained_ladder(model, ladder, settings.families[model.family])
            loose = unbudgeted_ladder(ladder, settings.families[model.family])
            for pin in (None, *ladder.names):
                called = f"{name}:{pin}" if pin else name
                if pin is None or called not in settings.models:  # a model's own name comes first
                    constrained = Target(name, model, strict, pin, prices) if strict else None
                    unbudgeted = Target(name, model, loose, pin, prices) if loose else None
                    self.targets[called] = Target(name, model, ladder, pin, prices, constrained, unbudgeted)

    def identify(self, headers: Mapping[bytes, bytes]) -> Key | None:
        """The client's key; None if no keys are configured.

        Raises: InvalidApiKey.
        """
        if not self._keys:
            return None
        secret = bearer(headers)
        if secret is None:
            secret = headers.get(b"x-api-key", b"").decode(errors="replace")
        if not secret:
            raise InvalidApiKey("No API key was given: send it as `Authorization: Bearer KEY`")
        key = self._keys.get(key_digest(secret))
        if key is None:
            raise InvalidApiKey("The API key is not known", tried=fingerprint(secret))
        return key

    def target(self, name: str, key: Key | None) -> Target:
        """The model that a request names, with the tier it pins, if any.

        Raises: InvalidRequest, ModelNotFound, ModelNotAllowed.
        """
        target = self.targets.get(name)
        if not name:
            target = self._only_model(key)
        elif target is None:
            model, _, tier = name.rpartition(":")
            if model in self.targets:
                tiers = ", ".join(self.targets[model].ladder.names)
                raise ModelNotFound(f"The model {model!r} has no tier {tier!r}, only {tiers}", param="model")
            raise ModelNotFound(f"The model {name[:200]!r} does not exist", param="model")
        if key is not None and not may_use(target, key):
            raise ModelNotAllowed(f"This API key may not use the model {target.name!r}", param="model")
        return target

    def _only_model(self, key: Key | None) -> Target:
        """The model of a request that names none: the only one, as a vLLM server has only one.

        Raises: InvalidRequest.
        """
        usable = [name for name in self._settings.models if may_use(self.targets[name], key)]
        if len(usable) != 1:
            raise InvalidRequest("missing required field `model`", param="model")
        return self.targets[usable[0]]

    def route(self, call: Call, *, price: float, explore: bool = False) -> RoutingPlan:
        """Choose a tier at a price, and keep what is needed to shorten it for a budget.

        explore: draw the tier at random for the configured share of requests.
        """
        target, outline = call.target, self._outline(call)
        known = "" if target.name in self.valve.prior else target.name
        prediction = self.predictor.predict(call.request.prompt, known, outline.ladder.lengths)
        promised = self.promised
        if promised is not None:
            price = promised.price(target.name, price)
        choice = policy.choose(outline.bounds, prediction, price)
        arm: Arm | None = "adaptive" if len(choice.eligible) > 1 else None
        holdout, unit = self._holdout, None
        if holdout is not None:
            unit = holdout.unit(call.key.name if call.key else None, call.request, call.headers)
            if arm and (arm := holdout.arm(unit)) == "holdout":
                choice = fixed_choice(choice, outline.ladder.index(holdout.policy))
        if arm == "adaptive" and promised is not None and promised.holds(target.name):
            choice = held_choice(choice, outline.ladder.index(promised.against))
        elif arm != "holdout" and explore and (epsilon := self._settings.exploration):
            choice = policy.explore_choice(choice, epsilon, _random.random())
        decision = policy.build_decision(
            outline,
            prediction,
            price,
            choice=choice,
            decision_id=_random.randbytes(12).hex(),
            model=target.name,
            versions=self.versions,
            arm=arm,
            compared=holdout is not None,
        )
        return RoutingPlan(outline, prediction, choice, decision, target.prices, unit)

    def _outline(self, call: Call) -> Outline:
        """What a call may get, kept for later ones of the same key, target, limits and matching rules."""
        target, key, request = call.target, call.key, call.request
        name, limits = key.name if key else None, request.client_limits
        rules = self._rules.matching(Facts(name, target.name, call.headers, request)) if self._rules else []
        fewest = least_tokens(request.fields, limits.max_tokens) if "min_tokens" in request.fields else 0
        matching = tuple([id(rule) for rule in rules]) if rules else ()
        raised = target.name in self.valve.raised
        asked = target, name, matching, limits, fewest, call.context, raised
        outline = self._outlines.get(asked)
        if outline is None:
            bounds = collect_bounds(
                target.ladder,
                model=target.model,
                key=key,
                rules=rules,
                limits=limits,
                pin=target.pin,
                raised=raised,
            )
            if fewest:
                limits = _with_least(limits, fewest, target.ladder, bounds)
            if len(self._outlines) >= _MOST_OUTLINES:
                self._outlines.clear()
            outline = self._outlines[asked] = Outline(target.ladder, bounds, limits, call.context)
        return outline


def _with_least(limits: ClientLimits, fewest: int, ladder: TierLadder, bounds: Bounds) -> ClientLimits:
    """The client's limits with its `min_tokens`, up to the longest rung that its key and the rules allow."""
    top = len(ladder.rungs) - 1 if bounds.allowed is None else bounds.allowed
    return replace(limits, min_tokens=min(fewest, ladder.longest(top)))


def may_use(target: Target, key: Key | None) -> bool:
    """Whether the key may use the model."""
    return key is None or key.models is None or target.name in key.models
