"""Which model a name means: with colons, with a tier after the last one, and without any name."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.loader import builtin_families
from gateway.config.settings import Settings
from gateway.errors import InvalidRequest, ModelNotFound
from gateway.routing.router import Router
from router_model.heuristic import HeuristicBaseline
from tests.making import TIERS


def named(*names: str, **sections: Any) -> Router:
    """A router of models with these names."""
    models = {name: {"family": "qwen3", "tiers": TIERS, "replicas": [{"url": "http://a"}]} for name in names}
    made = Settings.model_validate({"models": models, "families": builtin_families()} | sections)
    return Router(made, HeuristicBaseline(), "digest")


COLONS = ["qwen3:8b", "org/model:tag", "hf.co/x/y:Q4_K_M", "qwen3", "qwen3:long"]


@pytest.mark.parametrize(
    ("name", "model", "pin"),
    [
        *((name, name, None) for name in COLONS),
        ("qwen3:8b:long", "qwen3:8b", "long"),
        ("hf.co/x/y:Q4_K_M:short", "hf.co/x/y:Q4_K_M", "short"),
        ("qwen3:short", "qwen3", "short"),
        ("qwen3:long:long", "qwen3:long", "long"),
    ],
)
def test_names_with_colons(name: str, model: str, pin: str | None) -> None:
    """The longest name of a model counts, and only a tier after the last colon is a pin."""
    target = named(*COLONS).target(name, None)

    assert (target.name, target.pin) == (model, pin)


def test_unknown_tier_of_a_name_with_colons() -> None:
    """The error splits at the last colon after the name of a model."""
    made = named("qwen3:8b")

    with pytest.raises(ModelNotFound, match="'qwen3:8b' has no tier 'huge', only direct, short"):
        made.target("qwen3:8b:huge", None)
    with pytest.raises(ModelNotFound, match="The model 'qwen3:4b' does not exist"):
        made.target("qwen3:4b", None)


def test_only_tier_can_be_pinned() -> None:
    """A model with one tier answers by that tier's name too, which the list of models leaves out."""
    tiers = {"direct": TIERS["direct"]}
    solo = {"family": "qwen3", "tiers": tiers, "replicas": [{"url": "http://a"}]}
    made = Settings.model_validate({"models": {"solo": solo}, "families": builtin_families()})
    targets = Router(made, HeuristicBaseline(), "digest").targets

    assert [(target.pin, target.listed) for target in targets.values()] == [(None, True), ("direct", False)]


def test_request_without_a_model() -> None:
    """A request that names no model gets the only one that its key may use."""
    made = named("a", "b", keys=[{"name": "one", "key": "x", "models": ["b"]}])
    key = made.identify({b"authorization": b"Bearer x"})

    assert made.target("", key).name == "b"
    with pytest.raises(InvalidRequest, match="missing required field `model`"):
        made.target("", None)
