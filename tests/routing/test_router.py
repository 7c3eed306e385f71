"""Which key may use which model, and which tier a request gets, from configurations as users write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from gateway.budget.limits import BudgetLimits
from gateway.config.access import key_digest
from gateway.errors import InvalidApiKey, ModelNotAllowed, ModelNotFound
from gateway.openai_api.endpoints import CHAT
from gateway.routing.decision import Decision
from gateway.routing.router import Router
from gateway.snapshot import Snapshot
from gateway.upstream.pool import pools_of
from router_model.allocation import PriceTable
from router_model.predictor import Prediction, TierLength, ranks
from tests.making import TIERS, chat, settings

KEYS = [
    {"name": "alice", "key": "secret-a"},
    {"name": "bob", "key": "sécret-b", "models": ["other"], "floor": "short"},
    {"name": "carl", "key": "secret-c", "ceiling": "short"},
    {"name": "nobody", "key": "secret-n", "models": []},
]
TINY = {"family": "qwen3", "replicas": [{"url": "http://b"}], "tiers": TIERS}
SOLO = {"family": "qwen3", "replicas": [{"url": "http://b"}], "tiers": {"direct": {"thinking": 0}}}


class Hopeful:
    """A head that expects a gain from every tier."""

    version = "hopeful-1"

    def predict(self, prompt: str, model: str, tiers: Sequence[TierLength]) -> Prediction:
        rising = ranks(tiers)
        chances = tuple((rank + 1) / (rising[-1] + 1) for rank in rising)
        return Prediction(0.5, chances, tuple(float(tier.thinking) for tier in tiers))

    def price_table(self, model: str, tiers: Sequence[TierLength]) -> PriceTable | None:
        return PriceTable.of_points([0.0, 50.0, 50.0, 400.0], [9.0, 4.0, 3.0, 0.5])


def snapshot(**sections: Any) -> Snapshot:
    """Everything built from these sections, with the hopeful head."""
    made = settings(models={"other": TINY, "solo": SOLO}, **sections)
    return Snapshot(made, Router(made, Hopeful(), "digest"), BudgetLimits(made), pools_of(made))


def router(**sections: Any) -> Router:
    return snapshot(**sections).router


RULE = {"name": "r", "when": {"model": ["tiny"]}, "ceiling": "medium"}


@pytest.mark.parametrize(
    ("key", "rules", "fields", "cap"),
    [
        ("secret-a", [], {"min_tokens": 700}, 700),
        ("secret-a", [], {"min_tokens": 7000}, 900),  # no more than the longest tier
        ("secret-a", [RULE], {"min_tokens": 7000}, 500),
        ("secret-c", [], {"min_tokens": 7000}, 300),  # no more than the key's ceiling
        ("secret-a", [], {"min_tokens": 700, "max_tokens": 800}, 700),
        ("secret-a", [], {"min_tokens": 700, "max_tokens": 600}, 100),
        ("secret-a", [], {"min_tokens": 50}, 100),
    ],
)
def test_cap_rises_to_the_fewest_tokens(
    key: str, rules: list[dict[str, Any]], fields: dict[str, Any], cap: int
) -> None:
    """`min_tokens` raises the cap of a tier, up to what the key and the rules allow, and adds no thinking."""
    made = snapshot(keys=KEYS, rules=rules)
    request = chat(model="tiny:direct", **fields)
    known = made.router.identify({b"authorization": f"Bearer {key}".encode()})
    plan = made.router.route(made.call(CHAT, known, {}, request), price=0)

    assert (plan.decision.tier, plan.decision.thinking, plan.decision.cap) == ("direct", 0, cap)


def test_the_head_prices_the_first_requests() -> None:
    """A budget starts with the head's price table. Without budgets the table is not built."""
    budgeted = router(budgets=[{"name": "all", "window": "1m", "tokens": 1000}])
    prices = budgeted.targets["tiny"].prices

    assert prices is not None
    assert (prices.price(50), prices.price(1), prices.price(1e9)) == (3.0, 3.0, 0.5)
    assert router().targets["tiny"].prices is None


def decide(made: Snapshot, name: str = "tiny", key: str | None = None, **fields: Any) -> Decision:
    known = next((entry for entry in made.settings.keys if entry.name == key), None)
    headers = {b"x-importance": b"high"} if fields.pop("important", False) else {}
    call = made.call(CHAT, known, headers, chat(model=name, **fields))
    return made.router.route(call, price=made.settings.price).decision


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({b"authorization": b"Bearer secret-a"}, "alice"),
        ({b"authorization": b"bearer   secret-a "}, "alice"),
        ({b"authorization": "Bearer sécret-b".encode()}, "bob"),
        ({b"x-api-key": b"secret-c"}, "carl"),
        ({b"authorization": b"Basic abc", b"x-api-key": b"secret-c"}, "carl"),
    ],
)
def test_key_is_found(headers: dict[bytes, bytes], name: str) -> None:
    """A key may come as a bearer token or in x-api-key."""
    key = router(keys=KEYS).identify(headers)

    assert key
    assert key.name == name


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"authorization": b""},
        {b"authorization": b"Bearer"},
        {b"authorization": b"Bearer "},
        {b"authorization": b"secret-a"},
        {b"authorization": b"Bearer secret"},
        {b"authorization": b"Bearer secret-a\xff"},
        {b"authorization": b"Bearer wrong", b"x-api-key": b"secret-a"},
    ],
)
def test_key_is_refused(headers: dict[bytes, bytes]) -> None:
    """A missing or wrong key is refused, and the message does not repeat it."""
    with pytest.raises(InvalidApiKey) as caught:
        router(keys=KEYS).identify(headers)

    assert "secret" not in caught.value.message


def test_refusal_names_the_key_by_its_fingerprint() -> None:
    """The log can tell which key was tried, by the first digits of its hash; without a key there is none."""
    made = router(keys=KEYS)

    with pytest.raises(InvalidApiKey) as wrong:
        made.identify({b"x-api-key": b"secret-x"})
    with pytest.raises(InvalidApiKey) as missing:
        made.identify({})

    assert wrong.value.tried == key_digest("secret-x")[:8]
    assert missing.value.tried is None


def test_open_mode() -> None:
    """Without configured keys everybody may use the gateway, whatever key they send."""
    assert router().identify({b"authorization": b"Bearer anything"}) is None


def test_secrets_are_forgotten() -> None:
    """After loading, only the hash of a key is kept."""
    made = snapshot(keys=KEYS)

    assert "secret" not in repr(made)
    assert "secret" not in repr(vars(made.router))


@pytest.mark.parametrize(
    ("name", "model", "pin"), [("tiny", "tiny", None), ("tiny:long", "tiny", "long"), ("solo", "solo", None)]
)
def test_target(name: str, model: str, pin: str | None) -> None:
    """A model's name alone leaves the tier open; `MODEL:TIER` pins it."""
    target = router().target(name, None)

    assert (target.name, target.pin) == (model, pin)


@pytest.mark.parametrize(
    "name", ["nope", "tiny:", "tiny:huge", ":long", " ", "TINY", "tiny:long:long", "x" * 5000]
)
def test_unknown_target(name: str) -> None:
    """A model or tier that does not exist is the client's mistake, and the error message is short."""
    with pytest.raises(ModelNotFound) as caught:
        router().target(name, None)

    assert caught.value.param == "model"
    assert len(caught.value.message) < 300


def test_unknown_tier_lists_the_known_ones() -> None:
    """The error for an unknown tier lists the tiers of the model."""
    with pytest.raises(ModelNotFound, match="only direct, short, medium, long"):
        router().target("tiny:huge", None)


def test_model_not_allowed() -> None:
    """A key with `models` may use only those, with or without a pinned tier."""
    made = router(keys=KEYS)
    bob = made.identify({b"x-api-key": "sécret-b".encode()})

    assert made.target("other:long", bob).name == "other"
    nobody = made.identify({b"x-api-key": b"secret-n"})
    for key, name in ((bob, "tiny"), (bob, "tiny:direct"), (nobody, "other")):
        with pytest.raises(ModelNotAllowed):
            made.target(name, key)


def test_head_decides_when_nothing_else_does() -> None:
    """The decision records the head's estimates and all versions."""
    decision = decide(snapshot(price=0.05))

    assert (decision.tier, decision.reason, decision.requested) == ("long", "price", "adaptive")
    assert decision.correct == {"direct": 0.25, "short": 0.5, "medium": 0.75, "long": 1.0}
    assert {"config": "digest", "head": "hopeful-1"}.items() <= decision.versions.items()


def test_price_makes_it_short() -> None:
    """At a price that no gain is worth, the cheapest tier is chosen."""
    assert decide(snapshot(price=1000)).tier == "direct"


def test_decisions_have_ids_of_their_own() -> None:
    """Two decisions about the same request have different IDs."""
    made = snapshot()

    assert decide(made).id != decide(made).id


def test_important_requests_always_long() -> None:
    """A rule that fixes the tier outranks the client's limits, the pin and the price."""
    rule = {"name": "vip", "when": {"header": {"X-Importance": "high"}}, "tier": "long"}
    made = snapshot(price=1000, rules=[rule])
    decision = decide(made, "tiny:direct", important=True, thinking_token_budget=0, max_tokens=50)

    assert (decision.tier, decision.reason, decision.rule) == ("long", "rule_tier", "vip")
    assert (decision.thinking, decision.cap) == (800, 850)
    assert decide(made, "tiny:direct").tier == "direct"


def test_guaranteed_minimum() -> None:
    """A model's floor holds even if the client asks for no reasoning."""
    decision = decide(snapshot(price=1000, model={"floor": "medium"}), reasoning_effort="none", max_tokens=10)

    assert (decision.tier, decision.reason) == ("medium", "model_floor")
    assert (decision.thinking, decision.cap) == (400, 410)


def test_key_ceiling_holds_against_a_pin() -> None:
    """A pinned tier above the key's ceiling is lowered to the ceiling, and the reason says so."""
    decision = decide(snapshot(keys=KEYS), "tiny:long", key="carl")

    assert (decision.tier, decision.reason, decision.requested) == ("short", "key_ceiling", "long")


def test_model_without_a_choice() -> None:
    """A model with one tier always gets it, whatever the key's floor is."""
    made = snapshot(keys=[{"name": "dora", "key": "d", "floor": "long"}])

    assert decide(made, "solo", key="dora").reason == "only_tier"
