"""What holds for all exchanges of a gateway: limits, memory, and proxies that are believed."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.config.server import HttpLimits
from gateway.http.addresses import Networks
from gateway.http.body_memory import BodyMemory
from gateway.http.outbox import UnreadMemory


class HttpMemory:
    """Memory that the exchanges of a gateway share."""

    def __init__(self, limits: HttpLimits) -> None:
        self.bodies = BodyMemory(limits.bodies_bytes)
        self.unread = UnreadMemory(limits.unread_bytes)


@dataclass(frozen=True, slots=True)
class HttpTerms:
    """What holds for all exchanges of a gateway."""

    limits: HttpLimits
    memory: HttpMemory
    proxies: Networks = ()
    """The networks whose `X-Forwarded-For` is believed."""
