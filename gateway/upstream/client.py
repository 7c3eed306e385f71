"""A small HTTP/1.1 client for backends. It keeps connections alive."""

from __future__ import annotations

import time
from collections import deque
from random import Random

from gateway.config.models import ReplicaTls
from gateway.errors import NoBackend
from gateway.http.headers import Headers
from gateway.upstream.arriving import HttpResponse
from gateway.upstream.connecting import ConnectError, Connector
from gateway.upstream.http1 import Connection
from gateway.upstream.origin import Origin, head_start, parse_origin, request_head

_chance = Random()  # noqa: S311 - when a connection ends is no secret


class HttpClient:
    """Sends requests to any number of servers, over kept-alive connections where there are some."""

    def __init__(self, *, keep_alive: float, connector: Connector | None = None) -> None:
        """`keep_alive` is how long a connection may be idle and still be used, in seconds.

        It must be shorter than the time after which the servers close idle connections.
        """
        self._keep_alive = keep_alive
        self._connector = connector or Connector()
        self._idle: dict[Origin, deque[Connection]] = {}
        self._connections: set[Connection] = set()

    async def request(
        self,
        method: bytes,
        base: str,
        path: str,
        headers: Headers,
        body: bytes,
        *,
        connect: float,
        age: float = 300,
        tls: ReplicaTls | None = None,
        fresh: bool = False,
        keep: bool = True,
    ) -> HttpResponse:
        """Send a request and wait until its response begins.

        connect: seconds to open a connection.
        age: seconds after which a connection is not used for another request.
        fresh: use no kept-alive connection. keep: keep the connection for the next request.

        Raises: NoBackend, BackendDisconnected, BackendError.
        """
        origin = parse_origin(base, tls)
        kept = None if fresh else self.kept(origin, age)
        connection = kept or await self.connect(origin, connect)
        head = request_head(head_start(method, origin, path), headers, len(body))
        response = connection.ask(head, body, keep=keep)
        try:
            await response.begun()
        except BaseException:
            response.close()
            raise
        return response

    def kept(self, origin: Origin, age: float) -> Connection | None:
        """An idle connection to a server, opened less than `age` seconds ago; None if there is none."""
        idle, now = self._idle.get(origin), time.monotonic()
        while idle:
            connection = idle.pop()
            young = now - connection.opened < age * connection.share
            unused = now - connection.idle_since
            if young and unused < self._keep_alive and not connection.transport.is_closing():
                return connection
            connection.transport.close()
        return None

    async def connect(self, origin: Origin, seconds: float) -> Connection:
        """Open a connection to a server, within `seconds`.

        Raises: NoBackend.
        """
        idle = self._idle.setdefault(origin, deque())
        # at random, because connections that were opened together must not all end together
        share = _chance.uniform(0.75, 1)
        try:
            return await self._connector.connect(
                lambda: Connection(idle, self._connections, share), origin, seconds
            )
        except ConnectError as error:
            text = "The backend cannot be reached"
            failure = NoBackend(text, retry_after=1, detail=error.cause)
            failure.reached = False
            raise failure from None

    def close_idle(self) -> None:
        """Close connections that have been idle for too long to be used again."""
        oldest = time.monotonic() - self._keep_alive
        for idle in self._idle.values():
            while idle and idle[0].idle_since <= oldest:
                idle.popleft().transport.close()

    def close(self) -> None:
        """Close all connections, including those in use."""
        for connection in list(self._connections):
            connection.transport.abort()
