"""Recognises the keys of this project's examples, which everybody knows. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from gateway.config.access import key_digest
from gateway.config.settings import SettingPath, Settings

_WORDS = ("change-me", "changeme", "change_me", "CHANGE-ME", "CHANGEME", "CHANGE_ME")
_ENDINGS = ("", "-too", "-web", "-interns", "-batch", "-admin", "-console")
_KNOWN = frozenset(key_digest(secret) for secret in ["KEY", *map("".join, product(_WORDS, _ENDINGS))])


def example_keys(settings: Settings) -> Iterator[SettingPath]:
    """The places of keys that are copied from an example, given as secret or as hash."""
    for number, key in enumerate(settings.keys):
        if key.hash in _KNOWN or key.hash == key_digest(f"change-me-{key.name}"):
            yield "keys", number
    if settings.admin.hash in _KNOWN:
        yield ("admin",)
    if settings.console.hash in _KNOWN:
        yield ("console",)
    if settings.metrics.hash in _KNOWN:
        yield ("metrics",)
