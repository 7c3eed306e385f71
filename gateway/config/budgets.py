"""Settings of the token budgets: budgets, reservations, the queue, and Redis."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from gateway.config.base import Name, Seconds, Section

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def _seconds(value: Any) -> Any:
    """Seconds from `90s`, `1m`, `24h`, `30d`, or a number of seconds."""
    if isinstance(value, str):
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", value.strip())
        if not found:
            raise ValueError("a duration is written like 90s, 1m, 24h or 30d")
        return float(found[1]) * _UNITS[found[2]]
    return value


Duration = Annotated[float, BeforeValidator(_seconds), Field(ge=1, le=366 * 86_400)]
Scope = Literal["global", "key", "team", "model"]
FailurePolicy = Literal["closed", "degrade", "open"]


class Budget(Section):
    """A limit on tokens in any period as long as `window`, for everybody or for each key, team or model."""

    name: Name = Field(description="Shown in headers, errors and metrics.")
    scope: Scope = Field(
        "global",
        description="What is counted together: everybody's tokens, or the tokens per key, team or model.",
    )
    match: list[str] | None = Field(
        None, description="Apply only to these keys, teams or models; default all."
    )
    window: Duration = Field(description="Length: `1m`, `24h`, or seconds.")
    tokens: int = Field(ge=1, le=10**13, description="Limit of tokens within the window.")
    count: Literal["completion", "total"] = Field(
        "completion", description="Count completion tokens, or those of the prompt as well."
    )
    reserve: Literal["strict", "p95"] = Field(
        "strict",
        description="Reserve all that a request may use, or the 95th percentile of similar requests.",
    )
    when_redis_fails: FailurePolicy = Field(
        "degrade", description="Refuse, grant the cheapest tier under a local limit, or let everything pass."
    )


class Reservations(Section):
    """Tokens that are reserved while a request runs."""

    lease: Annotated[float, Field(ge=1, le=600)] = Field(
        15,
        description="Seconds until the reservations of a dead gateway expire; renewed every fifth of it.",
    )
    shortest_answer: Annotated[int, Field(ge=1, le=100_000)] = Field(
        256, description="Completion tokens below which a request is not shortened to fit into a window."
    )
    longest_answer: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        4096, description="Answer tokens of a request under a budget that has no other limit."
    )
    p95_overrun: Annotated[float, Field(ge=0, le=100)] = Field(
        0.1,
        description="Share of a limit by which the running requests of each gateway may exceed what "
        "`reserve: p95` has reserved for them; beyond it, requests reserve all that they may use.",
    )
    local_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1, description="Share of a budget that each gateway may spend by itself under `degrade`."
    )


class Queue(Section):
    """Requests that wait for room in a budget instead of being refused."""

    seconds: Annotated[float, Field(ge=0, le=60)] = Field(
        0, description="Longest wait for room; 0 refuses at once."
    )
    requests: Annotated[int, Field(ge=1, le=10_000)] = Field(
        100, description="Maximum number of waiting requests."
    )


class RedisSettings(Section):
    """The Redis that keeps the budgets: an existing server, or an embedded one."""

    url: SecretStr | None = Field(
        None, description="`redis://`, `rediss://` or `unix://`; default: an embedded server in `directory`."
    )
    cluster: bool = Field(False, description="Whether `url` is a node of a Redis Cluster.")
    directory: str = Field(".thinkmeter", description="Directory of the embedded server's files.")
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = Field(
        "thinkmeter", description="Hash tag at the start of every key."
    )
    timeout: Annotated[Seconds, Field(ge=0.05, le=0.25)] = Field(
        0.25, description="Seconds to connect, and to wait for a reply."
    )

    @field_validator("url")
    @classmethod
    def _address(cls, url: SecretStr | None) -> SecretStr | None:
        if url:
            parts = urlsplit(url.get_secret_value())
            if parts.scheme not in ("redis", "rediss", "unix"):
                raise ValueError("must begin with redis://, rediss:// or unix://")
            try:
                _ = parts.port
            except ValueError:  # its message could repeat a part of the password
                raise ValueError(
                    "the port is not valid; are `/`, `?` and `#` escaped in the password?"
                ) from None
        return url

    @model_validator(mode="after")
    def _cluster_has_address(self) -> Self:
        if self.cluster and (self.url is None or self.url.get_secret_value().startswith("unix:")):
            raise ValueError("a cluster needs a `url` with redis:// or rediss:// that names one of its nodes")
        return self
