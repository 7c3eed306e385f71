"""Settings of the HTTP server: address, shutdown, limits on what a client may send, and metrics."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    model_validator,
)

from gateway.config.access import hashed
from gateway.config.base import Seconds, Section


def _network(value: Any) -> Any:
    try:
        return ip_network(value)
    except ValueError:
        raise ValueError("must be an address or a network, such as 10.0.0.0/8") from None


ProxyNetwork = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,253}$|^[0-9A-Fa-f:.]{2,45}$")]
WebOrigin = Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^/\s]+)$")]


class CorsSettings(Section):
    """Which web pages of other origins may call the gateway from a browser."""

    origins: list[WebOrigin] = Field(
        default_factory=list,
        description="Origins such as `https://chat.example.com`, or `*` for all; none by default.",
    )
    max_age: int = Field(600, ge=0, le=86_400, description="Seconds that a browser may keep the permission.")


class ServerSettings(Section):
    """Address, port and shutdown of the gateway."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Processes that serve together on this port, as one gateway; one per core at most.",
    )
    keep_alive: Seconds = Field(75, description="Seconds that an idle client connection stays open.")
    drain_delay: float = Field(
        0, ge=0, le=600, description="Seconds between SIGTERM (/readyz turns 503) and closing the port."
    )
    drain_timeout: Seconds = Field(
        120, description="Seconds that running requests may take after the port closed."
    )
    hosts: list[HostName] = Field(
        default_factory=list,
        description="Names under which clients may call the gateway; default: all, but only local ones when "
        "it listens on a loopback address without `keys`.",
    )
    cors: CorsSettings = Field(default_factory=CorsSettings)
    trusted_proxies: list[ProxyNetwork] = Field(
        default_factory=list,
        description="Networks of proxies whose `X-Forwarded-For` names the client, for the log.",
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
    connections: int | None = Field(
        None,
        ge=16,
        description="Open connections from clients; default: what the limit of files allows, up to 8,192.",
    )
    connections_per_address: int | None = Field(
        None, ge=1, description="Open connections from one address; by default not bounded."
    )
    unfinished_bytes: int = Field(
        67_108_864,
        ge=65_536,
        description="Bytes of incomplete headers and of waiting requests, over all connections.",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on the host."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
