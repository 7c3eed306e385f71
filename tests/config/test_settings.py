"""Settings: order and efforts of tiers, references between sections, and ranges of values."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.config.access import Key, key_digest
from gateway.config.loader import ConfigError, builtin_families
from gateway.config.models import EFFORTS, Replica, Tier
from gateway.config.promises import broken_promises
from gateway.config.rules import Rule
from gateway.config.server import HttpLimits
from gateway.config.settings import Settings
from tests.making import TIERS, settings


def efforts_of(tiers: dict[str, Any]) -> dict[str, str | None]:
    made = settings(model={"tiers": tiers})
    return {name: tier.effort for name, tier in made.tiers_of(made.models["tiny"]).items()}


def test_tiers_are_sorted_cheapest_first() -> None:
    """The order in the file does not matter."""
    assert list(efforts_of(dict(reversed(TIERS.items())))) == ["direct", "short", "medium", "long"]


@pytest.mark.parametrize(
    ("tiers", "efforts"),
    [
        (TIERS, ["none", "low", "medium", "high"]),
        ({"a": {"thinking": 0}, "b": {"thinking": 9}, "c": {"thinking": 99}}, ["none", "low", "medium"]),
        ({"long": {"thinking": 0}}, ["none"]),
        ({"a": {"thinking": 9, "effort": "max"}}, ["max"]),
        ({f"t{n}": {"thinking": n} for n in range(1, 8)}, [*EFFORTS[2:], "max", "max"]),
    ],
)
def test_efforts_are_filled_in(tiers: dict[str, Any], efforts: list[str]) -> None:
    """A tier's effort is the configured one, else follows from a known name, else from its rank."""
    assert list(efforts_of(tiers).values()) == efforts


def test_equal_lengths_are_sorted_by_effort() -> None:
    """Tiers that differ only in effort are sorted by it."""
    tiers = {name: {"thinking": 100, "effort": name} for name in ("high", "low", "medium")}

    assert list(efforts_of(tiers)) == ["low", "medium", "high"]


def test_tiers_of_the_family() -> None:
    """A model without tiers has those of its family."""
    made = settings(model={"family": "granite", "tiers": {}})

    assert list(made.tiers_of(made.models["tiny"])) == ["direct", "long"]


@pytest.mark.parametrize("url", ["http://h:8000", "http://h:8000/", "http://h:8000/v1", "http://h:8000/v1/"])
def test_base_address(url: str) -> None:
    """A URL may be written with or without /v1."""
    assert Replica(url=url).base == "http://h:8000"


def test_a_replica_may_have_the_name_that_it_has_by_default() -> None:
    """A model's name may have colons, and so a name that is made of it."""
    assert Replica(url="http://h", name="qwen3:8b-0").name == "qwen3:8b-0"


@pytest.mark.parametrize(("family", "promised"), [("gpt-oss", True), ("qwen3", False), ("plain", False)])
def test_no_thought_where_none_can_be_prevented(family: str, promised: bool) -> None:
    """`thinkmeter check` notes a tier without thinking in a family that always thinks."""
    model = {"family": family, "replicas": [{"url": "http://h"}], "tiers": {"direct": {"thinking": 0}}}
    made = Settings.model_validate({"models": {"m": model}, "families": builtin_families()})
    notes = broken_promises(made)

    assert [note.endswith("the family 'gpt-oss' cannot switch thinking off") for note in notes] == [
        True
    ] * promised


def test_base_address_under_a_path() -> None:
    """The rest of the path is kept."""
    assert Replica(url="https://h/models/a/v1").base == "https://h/models/a"


def test_settings_are_immutable() -> None:
    """Settings in use cannot be changed; a reload builds new ones."""
    with pytest.raises(ValidationError):
        settings().price = 1.0  # type: ignore[misc]


def test_secrets_are_masked() -> None:
    """Printed settings show neither the keys of backends nor those of clients."""
    replica = {"url": "http://a", "api_key": "s3cret-backend"}
    made = settings(model={"replicas": [replica]}, keys=[{"name": "a", "key": "s3cret-client"}])

    assert "s3cret" not in repr(made) + str(made) + made.model_dump_json()
    assert made.models["tiny"].replicas[0].api_key
    assert made.models["tiny"].replicas[0].api_key.get_secret_value() == "s3cret-backend"


def test_key_is_kept_as_its_hash() -> None:
    """A key given as `key` equals the same key given as its `hash`."""
    digest = hashlib.sha256(b"k").hexdigest()

    assert key_digest("k") == digest
    assert Key.model_validate({"name": "a", "key": "k"}) == Key(name="a", hash=digest)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (Key, {"name": "a"}),
        (Key, {"name": "a", "key": ""}),
        (Key, {"name": "a", "key": 5}),
        (Key, {"name": "a", "hash": "short"}),
        (Key, {"name": "a", "hash": "G" * 64}),
        (Key, {"name": "a", "key": "k", "hash": key_digest("k")}),
        (Key, {"name": "", "key": "k"}),
        (Rule, {"name": "r"}),
        (Rule, {"name": "r", "tier": "long", "floor": "short"}),
        (Rule, {"name": "r", "tier": "long", "ceiling": "long"}),
        (Rule, {"name": "r", "ceiling": "long", "over_keys": True}),
        (Rule, {"name": "r", "floor": "long", "when": {"prompt": "("}}),
        (Rule, {"floor": "long"}),
        (Tier, {}),
        (Tier, {"thinking": -1}),
        (Tier, {"thinking": 1, "answer": 0}),
        (Tier, {"thinking": 1, "effort": "x"}),
        (HttpLimits, {"body_bytes": 0}),
        (HttpLimits, {"header_seconds": -1}),
        (Replica, {"url": "a:80"}),
        (Replica, {"url": "http://a", "name": "with space"}),
    ],
)
def test_invalid_section(section: Any, values: dict[str, Any]) -> None:
    """Sections that are incomplete, contradictory or out of range are refused."""
    with pytest.raises(ValidationError):
        section.model_validate(values)


TWINS = [{"name": "x", "url": "http://a"}, {"name": "x", "url": "http://b"}]
NUMBERED = [{"name": "tiny-1", "url": "http://a"}, {"url": "http://b"}]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"family": "qwen"}}, "models.tiny.family: unknown family 'qwen'"),
        ({"model": {"floor": "huge"}}, "models.tiny.floor: model 'tiny' has no tier 'huge'"),
        ({"keys": [{"name": "a", "key": "k", "models": ["x"]}]}, "keys.0.models: unknown model x"),
        ({"keys": [{"name": "a", "key": "k", "ceiling": "x"}]}, "keys.0.ceiling: model 'tiny' has no"),
        (
            {"keys": [{"name": "a", "key": "k", "floor": "long", "ceiling": "short"}]},
            "keys.0.floor: the floor 'long' is above the ceiling 'short'",
        ),
        ({"rules": [{"name": "r", "tier": "x"}]}, "rules.0.tier: model 'tiny' has no tier 'x'"),
        ({"rules": [{"name": "r", "tier": "long", "when": {"key": ["a"]}}]}, "when.key: unknown key a"),
        ({"rules": [{"name": "r", "tier": "long", "when": {"model": ["a"]}}]}, "when.model: unknown model a"),
        ({"keys": [{"name": "a", "key": "k"}, {"name": "a", "key": "l"}]}, "two keys share the same name"),
        ({"model": {"replicas": TWINS}}, "models.tiny.replicas.1.name: two replicas are called 'x'"),
        ({"model": {"replicas": NUMBERED}}, "models.tiny.replicas.1.name: two replicas are called 'tiny-1'"),
        ({"keys": [{"name": "a", "key": "k"}, {"name": "b", "key": "k"}]}, "share the same secret"),
        ({"families": {"bare": {}}, "model": {"family": "bare", "tiers": {}}}, "the family has no tiers"),
    ],
)  # fmt: skip
def test_references_must_exist(sections: dict[str, Any], message: str) -> None:
    """A reference to another part of the file must name one that exists."""
    with pytest.raises(ConfigError) as caught:
        settings(**sections)

    assert message in str(caught.value)


def test_bound_on_a_model_without_a_choice() -> None:
    """A floor for all models may name a tier that a model with one tier does not have."""
    solo = {"family": "plain", "replicas": [{"url": "http://b"}]}
    rule = {"name": "r", "floor": "long"}

    assert settings(models={"solo": solo}, rules=[rule]).rules[0].floor == "long"


@given(
    st.sampled_from(["price", "retries"]), st.sampled_from([-1, math.nan, math.inf, "x", None, [1], 10**9])
)
def test_numbers_have_a_range(field: str, wrong: Any) -> None:
    """Numbers out of range are refused when they are read."""
    models = {"m": {"family": "f", "replicas": [{"url": "http://a"}], "tiers": TIERS}}
    whole = {"families": {"f": {}}, "models": models}

    assert Settings.model_validate(whole)
    with pytest.raises(ValidationError):
        Settings.model_validate(whole | {field: wrong})
