"""Routing by one configuration: which key may use which model, and which tier a request gets. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from random import Random

from gateway import __version__
from gateway.config.access import Key, fingerprint, key_digest
from gateway.config.settings import Settings
from gateway.errors import InvalidApiKey, InvalidRequest, ModelNotAllowed, ModelNotFound
from gateway.http.headers import bearer
from gateway.openai_api.lengths import least_tokens
from gateway.openai_api.requests import ClientLimits, Request
from gateway.routing import policy
from gateway.routing.call import Call, Target
from gateway.routing.constrained import constrained_ladder
from gateway.routing.plan import RoutingPlan
from gateway.routing.policy import Bounds
from gateway.routing.rules import Facts, RuleBook
from gateway.routing.tiers import TierLadder
from router_model.encoders.embedder import Embedder
from router_model.head import Head
from router_model.predictor import Predictor

_ids = _chance = Random()  # noqa: S311 - neither decision IDs nor exploration need secrecy


class Router:
    """The keys, models, tiers, rules and head of one configuration. Immutable."""

    def __init__(self, settings: Settings, predictor: Predictor, digest: str) -> None:
        """digest: names the configuration in every decision."""
        self._settings = settings
        self.predictor = predictor
        encoder = predictor.encoder if isinstance(predictor, Head) else None
        self.embedder = encoder if isinstance(encoder, Embedder) else None
        """The head's encoder if its embeddings must be fetched before the head can predict, else None."""
        self._rules = RuleBook(settings.rules)
        self.versions = {"gateway": __version__, "config": digest, "head": predictor.version}
        self._keys = {key.hash: key for key in settings.keys}
        self.targets: dict[str, Target] = {}
        for name, model in settings.models.items():
            ladder = TierLadder.of(model, settings.tiers_of(model), settings.families[model.family])
            prices = predictor.price_table(name, ladder.lengths) if settings.budgets else None
            strict = constrained_ladder(model, ladder, settings.families[model.family])
            for pin in (None, *ladder.names):
                called = f"{name}:{pin}" if pin else name
                if pin is None or called not in settings.models:  # a model's own name comes first
                    constrained = Target(name, model, strict, pin, prices) if strict else None
                    self.targets[called] = Target(name, model, ladder, pin, prices, constrained)

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
        if not may_use(target, key):
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
        target, key, request = call.target, call.key, call.request
        ladder = target.ladder
        rules = self._rules.matching(Facts(key.name if key else None, target.name, call.headers, request))
        bounds = policy.collect_bounds(
            ladder,
            model=target.model,
            key=key,
            rules=rules,
            limits=request.client_limits,
            pin=target.pin,
        )
        limits = _with_least(request, ladder, bounds)
        prediction = self.predictor.predict(request.prompt, target.name, ladder.lengths)
        epsilon = self._settings.exploration if explore else 0.0
        choice = policy.explore_choice(policy.choose(bounds, prediction, price), epsilon, _chance.random())
        decision = policy.build_decision(
            ladder,
            bounds,
            limits,
            prediction,
            price,
            choice=choice,
            decision_id=f"{_ids.getrandbits(96):024x}",
            model=target.name,
            context=call.context,
            versions=self.versions,
        )
        return RoutingPlan(ladder, bounds, limits, prediction, call.context, choice, decision, target.prices)


def _with_least(request: Request, ladder: TierLadder, bounds: Bounds) -> ClientLimits:
    """The client's limits with its `min_tokens`, up to the longest rung that its key and the rules allow."""
    limits = request.client_limits
    if "min_tokens" not in request.fields or not (least := least_tokens(request.fields, limits.max_tokens)):
        return limits
    top = len(ladder.rungs) - 1 if bounds.allowed is None else bounds.allowed
    return replace(limits, min_tokens=min(least, ladder.longest(top)))


def may_use(target: Target, key: Key | None) -> bool:
    """Whether the key may use the model."""
    return key is None or key.models is None or target.name in key.models
