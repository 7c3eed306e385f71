"""Models, their backends and their tiers."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    HttpUrl,
    SecretStr,
    model_validator,
)

from gateway.config.base import Name, Seconds, Section, TierName, Tokens

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""The ladder of reasoning efforts, weakest first, over all dialects."""

_TIER_EFFORTS = {"direct": "none", "short": "low", "medium": "medium", "long": "high"}

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


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


class BreakerSettings(Section):
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


class EncoderSettings(Section):
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


def tiers_with_efforts(tiers: dict[str, Tier]) -> dict[str, Tier]:
    """The tiers, cheapest first. An effort that is not set follows from the name, else from the rank."""
    tiers = dict(sorted(tiers.items(), key=_length))
    thinking = [name for name, tier in tiers.items() if tier.thinking]
    filled = {}
    for name, tier in tiers.items():
        by_rank = EFFORTS[min(2 + thinking.index(name), 6)] if tier.thinking else "none"
        effort = tier.effort or (_TIER_EFFORTS.get(name, by_rank) if tier.thinking else "none")
        filled[name] = tier.model_copy(update={"effort": effort})
    return filled


def _length(item: tuple[str, Tier]) -> tuple[int, int]:
    name, tier = item
    effort = tier.effort or _TIER_EFFORTS.get(name, "none")
    return tier.thinking, EFFORTS.index(effort)
