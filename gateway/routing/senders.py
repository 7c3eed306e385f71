"""Who sends a request, and which of its headers the backend gets. No I/O."""

from __future__ import annotations

from msgspec import Struct

from gateway.config.access import Key
from gateway.http.headers import Headers


class Sender(Struct, frozen=True):
    """What the headers of a request say under one configuration.

    It is worked out once for all requests of a connection whose headers differ in the length alone.
    """

    snapshot: int
    """The number of the snapshot that it holds for."""
    key: Key | None
    name: str | None
    """The name of the key; None without keys."""
    affinity: str | None
    """The value of the affinity header, which keeps a session at one replica; None without one."""
    passing: Headers
    """The client's headers that pass to a backend, without the one that the gateway always replaces."""
