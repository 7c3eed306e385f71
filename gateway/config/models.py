"""Settings of models, their replicas and their tiers."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    HttpUrl,
    field_validator,
    model_validator,
)

from gateway.config.base import HeaderSecret, ModelName, Seconds, Section, TierName, Tokens

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""All reasoning efforts that clients and models may name, weakest first."""

_TIER_EFFORTS = {"direct": "none", "short": "low", "medium": "medium", "long": "high"}

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


_ENDPOINT = re.compile(r"/(?:chat/completions|completions|embeddings|models|health)$")


class Timeouts(Section):
    """How long a backend may take, in seconds."""

    connect: Seconds = Field(2, description="To open a connection to a backend, whatever addresses it has.")
    connection_age: Seconds = Field(
        300, description="A connection this old is not used again, so that a changed DNS answer is followed."
    )
    first_byte: Seconds = Field(120, description="To the first byte of a stream.")
    idle: Seconds = Field(
        60,
        description="Between two reads of a stream, or two writes to the client. Does not count while the "
        "backend may be at work in silence, as in a hidden thought or a tool call.",
    )
    comment: float = Field(
        15,
        ge=0,
        description="Silence of a stream after which its client gets a comment line, so that neither it nor "
        "a proxy takes the stream for dead; 0 sends none.",
    )
    total: Seconds = Field(900, description="For a whole request, streamed or not.")


class Health(Section):
    """Active health checks of every replica."""

    path: str = Field("/health", pattern=r"^/", description="Path of the GET request; 2xx means healthy.")
    interval: Seconds = Field(5, description="Seconds between two checks.")
    timeout: Seconds = Field(2, description="Seconds a check may take.")
    failures: int = Field(2, ge=1, description="Failed checks in a row before a replica is left out.")


class BreakerSettings(Section):
    """The circuit breaker: leaves out a replica that keeps failing requests of several clients."""

    failures: int = Field(
        5,
        ge=1,
        description="Different failed requests, or connections not opened in a row, that open the breaker.",
    )
    open_seconds: Seconds = Field(10, description="Seconds until one request may try the replica again.")


class Failover(Section):
    """When a request goes to another replica."""

    retry_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Most further attempts, as a share of a model's requests of the last 10 seconds; "
        "three are always allowed, and refused connections do not count.",
    )
    resend_lost: bool = Field(
        False,
        description="Also send on a request that a replica received and never answered. "
        "It may be generated twice, or kill one replica after the other.",
    )


class ReplicaTls(Section):
    """TLS to one replica: whom the gateway trusts, and how it identifies itself."""

    ca: str | None = Field(
        None, min_length=1, description="File of the CA certificates to trust, instead of the system's; PEM."
    )
    cert: str | None = Field(
        None, min_length=1, description="File of the client certificate that the replica asks for; PEM."
    )
    key: str | None = Field(
        None, min_length=1, description="File of its key, without a password; default: in `cert`."
    )
    verify: bool = Field(
        True,
        description="Whether to check the replica's certificate; false lets anybody pose as the replica.",
    )
    name: str | None = Field(
        None, min_length=1, description="Name in the replica's certificate; default: the host of the URL."
    )

    @field_validator("name")
    @classmethod
    def _host_name(cls, name: str | None) -> str | None:
        try:
            encoded = (name or "").encode("idna")
        except UnicodeError:
            encoded = b"."
        if encoded.startswith(b"."):
            raise ValueError("not a host name")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.key and not self.cert:
            raise ValueError("`key` needs `cert`")
        if self.ca and not self.verify:
            raise ValueError("`ca` has no effect with `verify: false`")
        return self


class Replica(Section):
    """One vLLM server."""

    url: HttpUrl = Field(description="Base URL, without /v1.")
    name: ModelName | None = Field(
        None, description="Shown in headers, logs and metrics; default NAME-0, NAME-1, …"
    )
    api_key: HeaderSecret | None = Field(None, description="Sent to the backend as a bearer token.")
    tls: ReplicaTls | None = Field(
        None, description="Own CA, client certificate and name of the server, for an https URL."
    )

    @field_validator("url")
    @classmethod
    def _base_url(cls, url: HttpUrl) -> HttpUrl:
        if url.query is not None or url.fragment is not None:
            raise ValueError("must have no `?` and no `#`, as paths are added to it")
        if found := _ENDPOINT.search((url.path or "").rstrip("/")):
            raise ValueError(f"must be the base URL, without {found[0]}")
        return url

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.tls and self.url.scheme != "https":
            raise ValueError("`tls` needs a URL that begins with https://")
        if self.api_key and self.url.username:
            raise ValueError("give `api_key` or a user in `url`, not both: each is sent as Authorization")
        return self

    @property
    def base(self) -> str:
        """The base URL without a trailing slash or /v1, which users of other tools often add."""
        return str(self.url).rstrip("/").removesuffix("/v1")


class EncoderSettings(Section):
    """The encoder of a head that was trained with embeddings."""

    source: str = Field(
        min_length=1,
        description="Directory of a sentence encoder, or base URL of an embeddings server.",
    )
    api_key: HeaderSecret | None = Field(None, description="Sent to the server as a bearer token.")
    timeout: Seconds = Field(
        0.25, description="Seconds to wait for an embedding; after that the head abstains."
    )

    @model_validator(mode="after")
    def _address(self) -> Self:
        if self.source.startswith(("http://", "https://")) and not urlsplit(self.source).hostname:
            raise ValueError("the URL has no host")
        return self

    @property
    def replica(self) -> Replica:
        """The embeddings server as a replica, to be called like any other backend."""
        return Replica.model_validate({"url": self.source, "api_key": self.api_key})


class Tier(Section):
    """A response length: reasoning tokens, and room for the answer."""

    thinking: Tokens = Field(description="Reasoning tokens; 0 switches reasoning off.")
    answer: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        4096, description="Completion tokens in addition to the reasoning; null sends no limit."
    )
    effort: Effort | None = Field(
        None, description="Position of the tier among all efforts; default by name, else by rank."
    )
    overlay: dict[str, Any] = Field(
        default_factory=dict, description="Fields merged into the request last, after the family's."
    )


class ImageTokens(Section):
    """How many prompt tokens an image becomes: one for each square of pixels, within two limits."""

    pixels: Annotated[int, Field(ge=1, le=4096)] = Field(
        28, description="Side of the square of pixels that becomes one token."
    )
    least: Tokens = Field(256, description="Tokens of the smallest image, which is enlarged.")
    most: Tokens = Field(description="Tokens of the largest image, to which larger ones are shrunk.")


class Family(Section):
    """The request fields that control the thinking of one kind of model; see families.yaml."""

    no_thinking: dict[str, Any] | None = Field(
        None, description="Merged at `thinking: 0`; absent if thinking cannot be switched off."
    )
    thinking: dict[str, Any] = Field(default_factory=dict, description="Merged when a tier thinks.")
    efforts: list[Effort] = Field(
        default_factory=list, description="Efforts that the model knows, weakest first."
    )
    tiers: dict[str, Tier] = Field(default_factory=dict, description="Tiers of a model that configures none.")
    parser: str | None = Field(
        None, description="vLLM's `--reasoning-parser` for it, which `probe` names if it is missing."
    )
    marks: tuple[str, str] | None = Field(
        None, description="How a thought begins and ends, for the `--reasoning-config` that `probe` prints."
    )
    image: ImageTokens | None = Field(
        None,
        description="Bound on the tokens of an image; absent: it may fill the context.",
    )


class Model(Section):
    """A model that clients may use, with its replicas and tiers."""

    family: str = Field(description="An entry of the family table.")
    replicas: list[Replica] = Field(min_length=1, description="The vLLM servers that serve it.")
    served_name: str | None = Field(
        None, description="Name of the model at the backend; default: the name here."
    )
    tiers: dict[TierName, Tier] = Field(
        default_factory=dict, description="Response lengths, in any order; default: the family's."
    )
    floor: TierName | None = Field(
        None, description="Guaranteed minimum: no request gets less than this tier."
    )
    thinking_budget: bool = Field(
        True, description="Whether to send a thinking budget; false for backends that refuse it."
    )
    budget_with_tools: bool = Field(
        False,
        description="Whether to send a thinking budget with tools or a schema; `thinkmeter probe` tells "
        "whether the backend keeps arguments valid under one.",
    )
    rungs: Annotated[int, Field(ge=2, le=32)] | None = Field(
        13, description="Thinking budgets to choose from, tiers included; null for the tiers alone."
    )

    def replica_names(self, model: str) -> list[str]:
        """The names of the replicas of the model that has this name."""
        return [replica.name or f"{model}-{position}" for position, replica in enumerate(self.replicas)]


def tiers_with_efforts(tiers: dict[str, Tier]) -> dict[str, Tier]:
    """The tiers, cheapest first. A missing effort is derived from the tier's name, else from its rank."""
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
