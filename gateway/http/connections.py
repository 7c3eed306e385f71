"""Bounds the connections of a gateway, and the bytes of requests that are not complete, over all of them.

When a bound is reached, the connection that can best be spared is closed: first the one that has waited
longest without any request, then the one that has been idle longest, and never one whose request is running.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Protocol

from gateway.http.turns import Turns

_OWN_DESCRIPTORS = 64
"""Descriptors kept for logs, Redis, the encoder, health checks and files that are read again."""
_MOST_CONNECTIONS = 8_192
_LONGEST_BACKLOG = 2_048


def backlog(descriptors: int) -> int:
    """How many connections may wait to be accepted: they may all be accepted before one of them is closed."""
    return max(16, min(_LONGEST_BACKLOG, descriptors // 8))


def default_connections(descriptors: int) -> int:
    """Connections from clients under this limit of open files, where each may need one to a backend."""
    return max(16, min(_MOST_CONNECTIONS, (descriptors - _OWN_DESCRIPTORS - backlog(descriptors)) // 2))


class ClientConnection(Protocol):
    """A client's connection, as the bounds see it."""

    peer_host: str

    def evict(self) -> None:
        """Close the connection at once."""
        ...


class Connections:
    """The open connections, in the order in which they can be spared. Each operation takes constant time."""

    def __init__(
        self,
        most: int,
        most_per_address: int | None,
        most_bytes: int,
        *,
        on_refused: Callable[[], object] = lambda: None,
    ) -> None:
        """`on_refused` is called for each connection that is closed because a bound was reached."""
        self._on_refused = on_refused
        self._most = most
        self._most_per_address = most_per_address
        self._most_bytes = most_bytes
        self._by_address: Counter[str] = Counter()
        self._open: set[ClientConnection] = set()
        # not plain dicts: those find their first entry slowly after many removals
        self._new: OrderedDict[ClientConnection, None] = OrderedDict()
        """Without any complete request so far, the oldest first."""
        self._idle: OrderedDict[ClientConnection, None] = OrderedDict()
        """After a response, the one that has waited longest first."""
        self._held: OrderedDict[ClientConnection, int] = OrderedDict()
        """Bytes of incomplete or waiting requests, by connection; the one that began first comes first."""
        self._bytes = 0
        self.turns = Turns()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def held_bytes(self) -> int:
        """Bytes of incomplete or waiting requests, over all connections."""
        return self._bytes

    def add(self, connection: ClientConnection) -> bool:
        """Count a new connection, and make room for it; False if there is none."""
        address = connection.peer_host
        if self._most_per_address is not None and self._by_address[address] >= self._most_per_address:
            self._on_refused()
            return False
        if len(self._open) >= self._most and not self._evict():
            self._on_refused()
            return False
        self._open.add(connection)
        self._new[connection] = None
        self._by_address[address] += 1
        return True

    def remove(self, connection: ClientConnection) -> None:
        if connection not in self._open:
            return
        self._open.remove(connection)
        self._new.pop(connection, None)
        self._idle.pop(connection, None)
        self.hold(connection, 0)
        self._by_address[connection.peer_host] -= 1
        if not self._by_address[connection.peer_host]:
            del self._by_address[connection.peer_host]

    def begin(self, connection: ClientConnection) -> None:
        """A complete head has arrived, so the connection is needed until the response is complete."""
        self._new.pop(connection, None)
        self._idle.pop(connection, None)

    def end(self, connection: ClientConnection) -> None:
        """The response is complete."""
        if connection in self._open:
            self._idle[connection] = None

    def hold(self, connection: ClientConnection, size: int) -> None:
        """Note how many bytes a connection holds that are not used yet. Close others if all is too much."""
        if not size and connection not in self._held:
            return
        self._bytes += size - self._held.get(connection, 0)
        if size:
            self._held[connection] = size
        else:
            self._held.pop(connection, None)
        while self._bytes > self._most_bytes:
            self._close(next(iter(self._held)))

    def _evict(self) -> bool:
        """Close the connection that can best be spared; False if none can."""
        spare = next(iter(self._new), None) or next(iter(self._idle), None)
        if spare is not None:
            self._close(spare)
        return spare is not None

    def _close(self, connection: ClientConnection) -> None:
        self._on_refused()
        self.remove(connection)
        connection.evict()
