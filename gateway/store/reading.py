"""The second connection to Redis, for reads that may take long."""

from __future__ import annotations

import logging

from gateway.store.connection import RedisConnection

log = logging.getLogger("thinkmeter.redis")


class ReadingConnection(RedisConnection):
    """A client for reading many windows, beside that of the requests.

    Reading may be slow where requests are fast, so a failure here does not mean that Redis is away.
    """

    async def start(self) -> None:
        self._connect()

    def _failed(self, error: Exception) -> None:
        log.debug("reading from Redis failed: %s", error)
        self.forget_clock()
