"""A request to the replicas of a model: its body, its headers, and who sends it."""

from __future__ import annotations

from msgspec import Struct

from gateway.http.headers import Headers
from gateway.openai_api.amendments import AS_PLANNED, Amendment
from gateway.upstream.amending import Amendable
from gateway.upstream.origin import request_head
from gateway.upstream.pool import Backend
from gateway.upstream.quarantine import fingerprint_of


class UpstreamRequest(Struct):
    """A request to the replicas of a model. Every attempt sends the same body, but for amendments."""

    path: str
    body: bytes
    """Empty past the commit point, when no attempt can follow."""
    headers: Headers
    """Those that this request adds to `Backend.head_lines`."""
    stream: bool = False
    affinity: str | None = None
    """Requests with the same value go to the same replica."""
    client: str = ""
    """Who sends it: the name of the key, or an address."""
    received: bytes = b""
    """The client's body."""
    whole_bytes: int = 1 << 19
    """A response longer than this is passed on before it is complete, unless it is a stream."""
    binary: bool = False
    """The endpoint may return bytes."""
    holds_back: bool = False
    """A stream may fall silent although its backend is at work."""
    late: bool = False
    """Nothing needs to come before the answer is complete, so that there is no first byte to wait for."""
    tried: list[str] = []
    """Names of the replicas it was sent to, in order; filled in by `Upstream.forward`."""
    draft: Amendable | None = None
    """Writes it anew for a replica that refuses a part of it; None if nothing can be changed."""
    amendment: Amendment = AS_PLANNED
    """What the replica that is asked now does not get."""
    amended: bytes = b""
    """The body with the amendment; empty without one."""
    _fingerprint: bytes = b""

    @property
    def fingerprint(self) -> bytes:
        """Identifies what the client sent, also when it sends it again. It is made when first asked for."""
        if not self._fingerprint:
            self._fingerprint = fingerprint_of(self.path, self.received)
        return self._fingerprint

    def forget_received(self) -> None:
        """Keep the client's body no longer, only its fingerprint."""
        self._fingerprint, self.received = self.fingerprint, b""

    def head(self, backend: Backend, size: int) -> bytes:
        """The request line and the headers for a replica. size: bytes of the body."""
        return request_head(backend.head_start(self.path), self.headers, size)
