"""Finds promises of a configuration that the ceiling of a key, or a model's family, breaks. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.access import Key
from gateway.config.models import Model
from gateway.config.rules import Rule
from gateway.config.settings import Settings

_NAMED = 3  # keys that a sentence names


def broken_promises(settings: Settings) -> list[str]:
    """One sentence for each promise that does not hold.

    A rule or a floor may promise more than some keys may get, and a tier no thought where none can be
    prevented.
    """
    sentences = []
    for rule in settings.rules:
        if not rule.over_keys and (short := list(_short_of(settings, rule))):
            promised = rule.tier or rule.floor
            sentences.append(
                f"rule {rule.name!r} promises {promised!r}, but a key's ceiling holds for {_few(short)}; "
                "`over_keys: true` would let the rule pass it"
            )
    for name, model in settings.models.items():
        if short := [key for key in settings.keys if _exceeds(settings, name, key, model.floor)]:
            sentences.append(
                f"model {name!r} has the floor {model.floor!r}, but a key's ceiling holds for {_few(short)}"
            )
        if never := _without_switch(settings, model):
            sentences.append(
                f"model {name!r} has the tier {never!r} with `thinking: 0`, but the family {model.family!r} "
                "cannot switch thinking off"
            )
    return sentences


def _short_of(settings: Settings, rule: Rule) -> Iterator[Key]:
    """The keys that get less than the rule promises, with some model."""
    for key in settings.keys:
        if rule.when.key is not None and key.name not in rule.when.key:
            continue
        models = rule.when.model or settings.models
        if any(_exceeds(settings, name, key, rule.tier or rule.floor) for name in models):
            yield key


def _exceeds(settings: Settings, model: str, key: Key, tier: str | None) -> bool:
    """Whether the tier is above the key's ceiling in a model that the key may use."""
    if tier is None or key.ceiling is None or (key.models is not None and model not in key.models):
        return False
    tiers = list(settings.tiers_of(settings.models[model]))
    return len(tiers) > 1 and tiers.index(tier) > tiers.index(key.ceiling)


def _without_switch(settings: Settings, model: Model) -> str | None:
    """The tier that is to have no thought, in a family that always thinks; None if there is none."""
    family = settings.families[model.family]
    if family.no_thinking is not None or not family.thinking:
        return None
    return next((name for name, tier in settings.tiers_of(model).items() if not tier.thinking), None)


def _few(keys: list[Key]) -> str:
    names = ", ".join(f"{key.name} ({key.ceiling})" for key in keys[:_NAMED])
    return f"{names} and {len(keys) - _NAMED} more" if len(keys) > _NAMED else names
