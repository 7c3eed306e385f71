"""Every setting, its type, its default and its meaning. Immutable: a reload builds a new `Settings`."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    HttpUrl,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from gateway.config.base import Name, Seconds, Section, Tokens
from gateway.config.budgets import Budget, Queue, RedisSettings, Reservations

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""The ladder of reasoning efforts, weakest first, over all dialects."""

BASELINE = "baseline"
"""Names the heuristic in `head`; everything else is a trained head."""

_TIER_EFFORTS = {"direct": "none", "short": "low", "medium": "medium", "long": "high"}

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Place = tuple[str | int, ...]
"""Where a setting stands: ("models", "qwen3-8b", "floor")."""


def _wrong(at: Place, message: str) -> PydanticCustomError:
    """An error about two settings that disagree, placed at one of them."""
    return PydanticCustomError("reference", "{message}", {"at": at, "message": message})


def _regular_expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text


class Server(Section):
    """Where the gateway listens and how it stops."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    keep_alive: Seconds = Field(75, description="Seconds an idle client connection is kept.")
    drain_delay: float = Field(
        0, ge=0, le=600, description="Seconds between SIGTERM (/readyz turns 503) and closing the port."
    )
    drain_timeout: Seconds = Field(
        120, description="Seconds running requests may take after the port closed."
    )
    access_log: bool = Field(True, description="One JSON line a request on standard output.")
    tracing: bool = Field(False, description="OpenTelemetry spans; needs the `otel` extra.")


class Limits(Section):
    """What a client may send."""

    body_bytes: int = Field(33_554_432, ge=1, description="Largest request body.")
    body_seconds: Seconds = Field(30, description="Time for a request body to arrive.")
    header_bytes: int = Field(65_536, ge=1_024, description="Largest sum of header names and values.")
    header_count: int = Field(128, ge=8, description="Most header lines.")
    header_seconds: Seconds = Field(15, description="Time for the request line and headers to arrive.")


class Timeouts(Section):
    """How long a backend may take, in seconds."""

    connect: Seconds = Field(2, description="To open a connection.")
    first_byte: Seconds = Field(120, description="To the first byte of a stream.")
    idle: Seconds = Field(60, description="Between two reads of a stream, or two writes to the client.")
    total: Seconds = Field(900, description="For a whole request, streamed or not.")


class Health(Section):
    """Active health checks of every replica."""

    path: str = Field("/health", pattern=r"^/", description="Path asked with GET; 2xx means healthy.")
    interval: Seconds = Field(5, description="Seconds between two checks.")
    timeout: Seconds = Field(2, description="Seconds a check may take.")
    failures: int = Field(2, ge=1, description="Checks that must fail in a row before a replica is left out.")


class Breaker(Section):
    """Passive protection: leave out a replica that keeps failing real requests."""

    failures: int = Field(5, ge=1, description="Failed requests in a row that open the breaker.")
    open_seconds: Seconds = Field(10, description="Seconds until one request may try the replica again.")


class Replica(Section):
    """One vLLM server."""

    url: HttpUrl = Field(description="Base address, without /v1.")
    name: Name | None = Field(None, description="Shown in headers, logs and metrics; default MODEL-N.")
    api_key: SecretStr | None = Field(None, description="Sent to the backend as a bearer token.")

    @property
    def base(self) -> str:
        """The address without a trailing slash, and without a trailing /v1 written out of habit."""
        return str(self.url).rstrip("/").removesuffix("/v1")


class Encoder(Section):
    """Where the encoder is that the head was trained with, if that was not the built-in one."""

    source: str = Field(
        min_length=1,
        description="Directory of a sentence encoder, or base address of a server of embeddings.",
    )
    api_key: SecretStr | None = Field(None, description="Sent to the server as a bearer token.")
    timeout: Seconds = Field(0.25, description="For the embedding of a prompt; after that the head abstains.")

    @model_validator(mode="after")
    def _address(self) -> Self:
        if self.source.startswith(("http://", "https://")) and not urlsplit(self.source).hostname:
            raise ValueError("an address without a host")
        return self

    @property
    def replica(self) -> Replica:
        """The server, as one more backend."""
        return Replica.model_validate({"url": self.source, "api_key": self.api_key})


class Tier(Section):
    """A response length: how long the model may think, and how much room the answer has."""

    thinking: Tokens = Field(description="Reasoning tokens; 0 switches reasoning off.")
    answer: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        4096, description="Completion tokens beside the reasoning; null sets no cap of ours."
    )
    effort: Effort | None = Field(
        None, description="Where the tier stands on the effort ladder; default by name, else by rank."
    )
    overlay: dict[str, Any] = Field(
        default_factory=dict, description="Fields merged into the request last, over the family's."
    )


class Family(Section):
    """How one kind of model is told how long to think; see families.yaml."""

    no_thinking: dict[str, Any] | None = Field(None, description="Merged at `thinking: 0`; absent: cannot.")
    thinking: dict[str, Any] = Field(default_factory=dict, description="Merged when a tier thinks.")
    efforts: list[Effort] = Field(default_factory=list, description="Efforts the model knows.")
    tiers: dict[str, Tier] = Field(default_factory=dict, description="Tiers of a model that names none.")


TierName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]


class Model(Section):
    """A model clients may name, its replicas and its tiers."""

    family: str = Field(description="An entry of the family table.")
    replicas: list[Replica] = Field(min_length=1, description="The servers that serve it.")
    served_name: str | None = Field(None, description="Its name at the backend; default: the name here.")
    tiers: dict[TierName, Tier] = Field(
        default_factory=dict, description="Response lengths, any order; default: the family's."
    )
    floor: TierName | None = Field(None, description="Guaranteed minimum: no answer below this tier.")
    thinking_budget: bool = Field(
        True, description="false never sends a thinking budget, for backends that refuse it."
    )


class When(Section):
    """All conditions given must hold; of a list, one member."""

    key: list[str] | None = Field(None, description="Names of API keys.")
    model: list[str] | None = Field(None, description="Names of models.")
    header: dict[str, str] | None = Field(None, description="Header values, exact; names in any case.")
    metadata: dict[str, str] | None = Field(None, description="Values of the request's `metadata`.")
    prompt: Annotated[str, AfterValidator(_regular_expression)] | None = Field(
        None, description="Regular expression searched in the last 20,000 characters of the conversation."
    )
    tools: bool | None = Field(None, description="Whether the request offers tools.")


class Rule(Section):
    """What the operator decides before the head does: a fixed tier, a floor or a ceiling."""

    name: Name = Field(description="Shown in the decision.")
    when: When = Field(default_factory=When, description="Conditions; none matches every request.")
    tier: TierName | None = Field(None, description="Always this tier, whatever the client asks.")
    floor: TierName | None = Field(None, description="At least this tier.")
    ceiling: TierName | None = Field(None, description="At most this tier.")

    @model_validator(mode="after")
    def _one_outcome(self) -> Self:
        if self.tier is None and self.floor is None and self.ceiling is None:
            raise ValueError("a rule needs one of tier, floor, ceiling")
        if self.tier is not None and (self.floor or self.ceiling):
            raise ValueError("a rule with a fixed tier has no floor or ceiling")
        return self


def key_digest(secret: str) -> str:
    """SHA-256 of an API key, in hex: the only form in which keys are kept."""
    return hashlib.sha256(secret.encode()).hexdigest()


def matching_digest(secret: str, digests: Iterable[str]) -> str | None:
    """The digest of these that is the secret's. All are compared, so that the time taken tells nothing."""
    given, match = key_digest(secret), None
    for digest in digests:
        if hmac.compare_digest(given, digest):
            match = digest
    return match


def hashed(data: Any) -> Any:
    """The section as written, with the secret `key` replaced by its `hash`."""
    if not isinstance(data, dict) or "key" not in data:
        return data
    data = dict(data)
    secret = data.pop("key")
    if "hash" in data:
        raise ValueError("give `key` or `hash`, not both")
    if not isinstance(secret, str) or not secret:
        raise ValueError("`key` must be a text that is not empty")
    return data | {"hash": key_digest(secret)}


class Key(Section):
    """A client's API key and what it may do. The secret itself is hashed at load and forgotten."""

    name: Name = Field(description="Shown in logs; used by rules.")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the key (`thinkmeter hash-key`).")
    team: Name | None = Field(None, description="Whose budgets of scope `team` it shares.")
    models: list[str] | None = Field(None, description="Models it may use; default all.")
    floor: TierName | None = Field(None, description="At least this tier.")
    ceiling: TierName | None = Field(None, description="At most this tier.")

    @model_validator(mode="before")
    @classmethod
    def _hash_secret(cls, data: Any) -> Any:
        return hashed(data)


class Console(Section):
    """The page at /console. Its key is hashed at load and forgotten, like any other."""

    enabled: bool | None = Field(
        None, description="Whether it is served; default: without `keys`, or with a key that may watch."
    )
    hash: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the key that may watch."
    )

    @model_validator(mode="before")
    @classmethod
    def _hash_secret(cls, data: Any) -> Any:
        return hashed(data)


class Admin(Section):
    """Who may see and change budgets at /admin. The key is hashed at load and forgotten."""

    hash: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the admin's key.")

    @model_validator(mode="before")
    @classmethod
    def _hash_secret(cls, data: Any) -> Any:
        return hashed(data)


class Settings(Section):
    """The whole configuration."""

    server: Server = Field(default_factory=Server)
    limits: Limits = Field(default_factory=Limits)
    timeouts: Timeouts = Field(default_factory=Timeouts)
    health: Health = Field(default_factory=Health)
    breaker: Breaker = Field(default_factory=Breaker)
    retries: int = Field(2, ge=0, le=10, description="Further attempts before the first byte.")
    affinity_header: str | None = Field(
        None, description="Requests with the same value of this header go to the same replica."
    )
    price: float = Field(
        0.02, ge=0, le=1_000, description="Probability of a right answer that 1,000 tokens must buy."
    )
    head: str = Field(
        "general",
        min_length=1,
        description="The trained head: `general`, `tiny`, a directory, or `baseline` (length and keywords).",
    )
    encoder: Encoder | None = Field(None, description="Of a head that was trained with embeddings.")
    exploration: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Share of adaptive requests whose tier is drawn at random; none while a budget is tight.",
    )
    families: dict[str, Family] = Field(default_factory=dict, description="Added to the built-in table.")
    models: dict[Name, Model] = Field(min_length=1, description="The models on offer.")
    rules: list[Rule] = Field(default_factory=list, description="Floors, ceilings and fixed tiers.")
    keys: list[Key] = Field(default_factory=list, description="API keys; none = open to everybody.")
    console: Console = Field(default_factory=Console)
    budgets: list[Budget] = Field(default_factory=list, description="Limits on tokens over time.")
    reservations: Reservations = Field(default_factory=Reservations)
    queue: Queue = Field(default_factory=Queue)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    admin: Admin = Field(default_factory=Admin)

    @field_validator("keys")
    @classmethod
    def _keys_differ(cls, keys: list[Key]) -> list[Key]:
        for attribute in ("name", "hash"):
            values = [getattr(key, attribute) for key in keys]
            if len(set(values)) < len(values):
                raise ValueError(f"two keys share the same {attribute}")
        return keys

    def tiers_of(self, model: Model) -> dict[str, Tier]:
        """The model's tiers, cheapest first, with every effort filled in."""
        tiers = dict(sorted((model.tiers or self.families[model.family].tiers).items(), key=_length))
        thinking = [name for name, tier in tiers.items() if tier.thinking]
        filled = {}
        for name, tier in tiers.items():
            by_rank = EFFORTS[min(2 + thinking.index(name), 6)] if tier.thinking else "none"
            effort = tier.effort or (_TIER_EFFORTS.get(name, by_rank) if tier.thinking else "none")
            filled[name] = tier.model_copy(update={"effort": effort})
        return filled

    @model_validator(mode="after")
    def _references_exist(self) -> Self:
        for name, model in self.models.items():
            at: Place = ("models", name)
            if model.family not in self.families:
                known = ", ".join(sorted(self.families))
                raise _wrong((*at, "family"), f"unknown family {model.family!r}; known: {known}")
            if not self.tiers_of(model):
                raise _wrong((*at, "tiers"), "the family names no tiers, so the model must")
            self._check_tier((*at, "floor"), model.floor, [name])
        for i, key in enumerate(self.keys):
            self._check_bounds(("keys", i), key.models, {"floor": key.floor, "ceiling": key.ceiling})
        for i, rule in enumerate(self.rules):
            bounds = {"tier": rule.tier, "floor": rule.floor, "ceiling": rule.ceiling}
            self._check_bounds(("rules", i), rule.when.model, bounds)
            unknown = sorted(set(rule.when.key or ()) - {key.name for key in self.keys})
            if unknown:
                raise _wrong(("rules", i, "when", "key"), f"unknown key {', '.join(unknown)}")
        return self

    @model_validator(mode="after")
    def _budgets_have_holders(self) -> Self:
        names = [budget.name for budget in self.budgets]
        for i, budget in enumerate(self.budgets):
            if budget.name in names[:i]:
                raise _wrong(("budgets", i, "name"), f"two budgets are called {budget.name!r}")
            known = self.holders(budget.scope)
            if not known:
                raise _wrong(("budgets", i, "scope"), f"no key is configured that has a {budget.scope}")
            if budget.scope == "global" and budget.match is not None:
                raise _wrong(("budgets", i, "match"), "a global budget is for everybody")
            unknown = sorted(set(budget.match or ()) - set(known))
            if unknown:
                raise _wrong(("budgets", i, "match"), f"unknown {budget.scope} {', '.join(unknown)}")
        return self

    def holders(self, scope: str) -> tuple[str, ...]:
        """All that may hold a budget of this scope."""
        named: dict[str, Iterable[str]] = {
            "global": ["*"],
            "key": (key.name for key in self.keys),
            "team": (key.team for key in self.keys if key.team),
            "model": self.models,
        }
        return tuple(dict.fromkeys(named[scope]))

    def _check_bounds(self, at: Place, models: list[str] | None, bounds: dict[str, str | None]) -> None:
        unknown = sorted(set(models or ()) - set(self.models))
        if unknown:
            raise _wrong(at, f"unknown model {', '.join(unknown)}")
        for field, tier in bounds.items():
            self._check_tier((*at, field), tier, models)

    def _check_tier(self, at: Place, tier: str | None, models: list[str] | None) -> None:
        """A bound must mean something on every model it applies to that has a choice at all."""
        for name in models or self.models:
            tiers = self.tiers_of(self.models[name])
            if tier is not None and len(tiers) > 1 and tier not in tiers:
                raise _wrong(at, f"model {name!r} has no tier {tier!r}, only {', '.join(tiers)}")


def _length(item: tuple[str, Tier]) -> tuple[int, int]:
    name, tier = item
    effort = tier.effort or _TIER_EFFORTS.get(name, "none")
    return tier.thinking, EFFORTS.index(effort)
