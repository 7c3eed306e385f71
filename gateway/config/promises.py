"""Finds promises of a configuration that the ceiling of a key breaks. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.access import Key
from gateway.config.rules import Rule
from gateway.config.settings import Settings

_NAMED = 3  # keys that a sentence names


def broken_promises(settings: Settings) -> list[str]:
    """One sentence for each rule and each model's floor that promises more than some keys may get."""
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


def _few(keys: list[Key]) -> str:
    names = ", ".join(f"{key.name} ({key.ceiling})" for key in keys[:_NAMED])
    return f"{names} and {len(keys) - _NAMED} more" if len(keys) > _NAMED else names
