"""Who may ask for what, and what is decided for them: one immutable value made from the configuration."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from random import Random

from gateway import __version__, policy
from gateway.config import Key, Model, key_digest
from gateway.configfile import Loaded
from gateway.errors import InvalidApiKey, ModelNotAllowed, ModelNotFound
from gateway.headers import bearer
from gateway.policy import Decision, Facts, RuleBook
from gateway.prices import PriceTable
from gateway.protocol import Request
from gateway.reservation import Budgets
from gateway.shortening import Judgement
from gateway.tiers import Ladder
from router_model.encoders import Embedder
from router_model.head import Head, Predictor

_ids = _chance = Random()  # noqa: S311 - neither names nor experiments need secrecy


@dataclass(frozen=True, slots=True)
class Target:
    """What a request names: a model, its tiers, and the tier it pins."""

    name: str
    model: Model
    ladder: Ladder
    pin: str | None
    prices: PriceTable | None = None
    """What tokens are worth on the head's own prompts; serves a budget until it has seen some of its own."""


class Rulings:
    """Everything decisions are made from; immutable, and replaced as a whole on reload."""

    def __init__(self, loaded: Loaded) -> None:
        settings = loaded.settings
        self.settings = settings
        self.predictor = loaded.predictor
        encoder = loaded.predictor.encoder if isinstance(loaded.predictor, Head) else None
        self.embedder = encoder if isinstance(encoder, Embedder) else None
        self.book = RuleBook(settings.rules)
        self.budgets = Budgets(settings)
        self.versions = {"gateway": __version__, "config": loaded.digest, "head": loaded.predictor.version}
        self._keys = {bytes.fromhex(key.hash): key for key in settings.keys}
        self.targets: dict[str, Target] = {}
        for name, model in settings.models.items():
            ladder = Ladder.of(model, settings.tiers_of(model), settings.families[model.family])
            prices = _first_prices(loaded.predictor, name, ladder) if settings.budgets else None
            pins = [None, *ladder.names] if len(ladder.names) > 1 else [None]
            for pin in pins:
                # a model that is really called `name:tier` keeps its name
                self.targets.setdefault(
                    f"{name}:{pin}" if pin else name, Target(name, model, ladder, pin, prices)
                )

    def identify(self, headers: dict[bytes, bytes]) -> Key | None:
        """The client's key; None in open mode. Raises InvalidApiKey."""
        if not self._keys:
            return None
        secret = bearer(headers)
        if secret is None:
            secret = headers.get(b"x-api-key", b"").decode(errors="replace")
        if not secret:
            raise InvalidApiKey("No API key was given: send it as `Authorization: Bearer KEY`")
        digest = bytes.fromhex(key_digest(secret))
        found = None
        for known, key in self._keys.items():  # all of them, so that time tells nothing about a match
            if hmac.compare_digest(known, digest):
                found = key
        if found is None:
            raise InvalidApiKey("The API key is not known")
        return found

    def target(self, name: str, key: Key | None) -> Target:
        """The model a request names, pinned tier included; raises ModelNotFound or ModelNotAllowed."""
        target = self.targets.get(name)
        if target is None:
            model, _, tier = name.rpartition(":")
            if model in self.targets:
                tiers = ", ".join(self.targets[model].ladder.names)
                raise ModelNotFound(f"The model {model!r} has no tier {tier!r}, only {tiers}", param="model")
            raise ModelNotFound(f"The model {name[:200]!r} does not exist", param="model")
        if not allowed(target, key):
            raise ModelNotAllowed(f"This API key may not use the model {target.name!r}", param="model")
        return target

    def decide(
        self,
        target: Target,
        key: Key | None,
        headers: dict[bytes, bytes],
        request: Request,
        context: int | None,
    ) -> Decision:
        """The tier for a request, without any I/O."""
        return self.judge(target, key, headers, request, context).decision

    def judge(
        self,
        target: Target,
        key: Key | None,
        headers: dict[bytes, bytes],
        request: Request,
        context: int | None,
        *,
        price: float | None = None,
        explores: bool = False,
    ) -> Judgement:
        """The decision at a price (default: the configured one), and what a budget may make of it.

        explores: whether chance may choose another tier for a share of the requests.
        """
        price = self.settings.price if price is None else price
        ladder = target.ladder
        rules = self.book.matching(Facts(key.name if key else None, target.name, headers, request))
        bounds = policy.bounds(
            ladder, model=target.model, key=key, rules=rules, wish=request.wish, pin=target.pin
        )
        prediction = self.predictor.predict(request.prompt, target.name, ladder.lengths)
        epsilon = self.settings.exploration if explores else 0.0
        choice = policy.explored(policy.choose(bounds, prediction, price), epsilon, _chance.random())
        decision = policy.decide(
            ladder,
            bounds,
            request.wish,
            prediction,
            price,
            choice=choice,
            decision_id=f"{_ids.getrandbits(96):024x}",
            model=target.name,
            context=context,
            versions=self.versions,
        )
        return Judgement(ladder, bounds, request.wish, prediction, context, choice, decision, target.prices)


def _first_prices(predictor: Predictor, model: str, ladder: Ladder) -> PriceTable | None:
    table = predictor.price_table(model, ladder.lengths)
    if table is None:
        return None
    points = {float(b): float(p) for b, p in zip(*table, strict=True) if b > 0 and p > 0}
    return PriceTable(list(points), list(points.values())) if points else None


def allowed(target: Target, key: Key | None) -> bool:
    """Whether the key may use the model."""
    return key is None or key.models is None or target.name in key.models
