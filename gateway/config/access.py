"""API keys, and the keys of the console and of the admin."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import (
    Field,
    model_validator,
)

from gateway.config.base import Name, Section, TierName, header_text


def key_digest(secret: str) -> str:
    """SHA-256 of a key, in hex. Keys are kept in no other form.

    Look up a key by its digest. How long that takes depends on the digest alone, and nobody can choose a
    secret whose digest begins like that of another. So the time reveals nothing about the keys.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


def fingerprint(secret: str) -> str:
    """The first 8 hex digits of the digest: names a key in the log without revealing it."""
    return key_digest(secret)[:8]


def hashed(data: Any) -> Any:
    """The raw section with the secret `key` replaced by its `hash`."""
    if not isinstance(data, dict) or "key" not in data:
        return data
    data = dict(data)
    secret = data.pop("key")
    if "hash" in data:
        raise ValueError("give `key` or `hash`, not both")
    if not isinstance(secret, str) or not secret.strip():
        raise ValueError("`key` must be text that is not empty")
    return data | {"hash": key_digest(header_text(secret))}


class Key(Section):
    """A client's API key and what it may do. The secret is hashed at load and not kept."""

    name: Name = Field(description="Shown in logs; used by rules.")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the key (`thinkmeter hash-key`).")
    team: Name | None = Field(None, description="Team whose budgets (scope `team`) the key shares.")
    models: list[str] | None = Field(None, description="Models that the key may use; default all.")
    floor: TierName | None = Field(None, description="At least this tier.")
    ceiling: TierName | None = Field(None, description="At most this tier.")
    scheduling: bool = Field(
        False, description="Whether its requests may schedule and place themselves at a backend."
    )

    @model_validator(mode="before")
    @classmethod
    def _hash_secret(cls, data: Any) -> Any:
        return hashed(data)


class ConsoleSettings(Section):
    """The page at /console. Its key is hashed at load and not kept."""

    enabled: bool | None = Field(
        None,
        description="Whether the console is served; default: if there are no `keys`, or a key that opens it.",
    )
    hash: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the key that opens the console."
    )

    @model_validator(mode="before")
    @classmethod
    def _hash_secret(cls, data: Any) -> Any:
        return hashed(data)


class AdminSettings(Section):
    """Who may see and change budgets at /admin. The key is hashed at load and not kept."""

    hash: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the admin's key.")

    @model_validator(mode="before")
    @classmethod
    def _hash_secret(cls, data: Any) -> Any:
        return hashed(data)
