"""Settings of the HTTP server: address, shutdown, limits on what a client may send, and metrics."""

from __future__ import annotations

from typing import Any

from pydantic import (
    Field,
    model_validator,
)

from gateway.config.access import hashed
from gateway.config.base import Seconds, Section


class ServerSettings(Section):
    """Address, port and shutdown of the gateway."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    keep_alive: Seconds = Field(75, description="Seconds that an idle client connection stays open.")
    drain_delay: float = Field(
        0, ge=0, le=600, description="Seconds between SIGTERM (/readyz turns 503) and closing the port."
    )
    drain_timeout: Seconds = Field(
        120, description="Seconds that running requests may take after the port closed."
    )
    access_log: bool = Field(True, description="Write one JSON line per request to standard output.")
    tracing: bool = Field(False, description="Emit OpenTelemetry spans; needs the `otel` extra.")


class MetricsSettings(Section):
    """What /metrics shows, and who may read it. The key is hashed at load and not kept."""

    hash: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the key that opens /metrics; default: no key is needed.",
    )
    holders: int = Field(
        500,
        ge=0,
        le=100_000,
        description="Holders of each budget in /metrics and the console: those closest to their limit.",
    )
    max_age: float = Field(
        1,
        ge=0,
        le=60,
        description="Seconds for which all scrapes and consoles share one reading of the budgets.",
    )

    @model_validator(mode="before")
    @classmethod
    def _hash_secret(cls, data: Any) -> Any:
        return hashed(data)


class HttpLimits(Section):
    """Limits on what a client may send."""

    body_bytes: int = Field(33_554_432, ge=1, description="Largest request body, in bytes.")
    bodies_bytes: int = Field(
        100_663_296,
        ge=1,
        description="Bytes that the bodies of all requests without a response may take; others wait unread.",
    )
    unread_bytes: int = Field(
        67_108_864,
        ge=0,
        description="Bytes of streams that clients may leave unread without delaying the backend.",
    )
    body_seconds: Seconds = Field(30, description="Seconds for a request body to arrive.")
    header_bytes: int = Field(
        65_536, ge=1_024, description="Largest sum of header names and values, in bytes."
    )
    header_count: int = Field(128, ge=8, description="Maximum number of header lines.")
    header_seconds: Seconds = Field(15, description="Seconds for the request line and headers to arrive.")
