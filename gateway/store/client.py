"""The Redis client, and the only importer of redis-py.

redis-py connects, authenticates, speaks TLS and finds the nodes of a cluster. Commands to a single server
then pass over a `Channel`, because the layers of redis-py cost more time than Redis itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from redis.asyncio import ConnectionPool, RedisCluster
from redis.asyncio.connection import DefaultParser
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoScriptError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as LostConnection

from gateway.store.channel import GRACE_TURNS, Channel, ask

__all__ = [
    "FAILURES",
    "NoScriptError",
    "RedisClient",
    "WrongReply",
    "describe_trouble",
    "is_lost",
    "reply_within",
]

FAILURES = (RedisError, RedisClusterException, OSError, TimeoutError)
"""What a command may raise."""

_REFUSES_WRITES = ("MISCONF", "OutOfMemoryError", "-OOM", "ReadOnlyError", "-READONLY", "NOREPLICAS")
"""Words of the errors with which a server that is up refuses to write, directly or in a script."""


class WrongReply(ResponseError):  # noqa: N818 - named after what happened
    """What answers is not Redis, or does not run our scripts."""


class RedisClient:
    """The connections of one process to a server or a cluster."""

    def __init__(self, url: str, timeout: float, *, cluster: bool) -> None:
        """timeout: seconds to connect."""
        self.idle: list[Channel] = []
        """Connections to a single server that wait for a command; empty with a cluster."""
        self._channels: WeakSet[Channel] = WeakSet()
        options: dict[str, Any] = {
            "socket_connect_timeout": timeout,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        self._cluster: RedisCluster | None = None
        if cluster:  # it tries another node only after its own timeout
            self._cluster = RedisCluster.from_url(
                url, socket_timeout=timeout, require_full_coverage=False, **options
            )
        else:
            self._pool = ConnectionPool.from_url(url, socket_timeout=None, **options)

    async def execute(self, words: tuple[Any, ...], seconds: float) -> Any:
        """The reply of a command within so many seconds. Raises: FAILURES."""
        if self._cluster:
            return await reply_within(seconds, self._cluster.execute_command(*words))
        if self.idle:
            return await ask(self.idle.pop(), words, seconds)
        return await reply_within(seconds, self._connect_and_ask(words, seconds))

    async def _connect_and_ask(self, words: tuple[Any, ...], seconds: float) -> Any:
        connection: Any = self._pool.connection_class(**self._pool.connection_kwargs)
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        writer = connection._writer  # noqa: SLF001 - redis-py has no other way to hand over a connection
        connection._reader = connection._writer = None  # noqa: SLF001
        channel = Channel(writer, self.idle, DefaultParser.parse_error)
        self._channels.add(channel)
        try:
            return await ask(channel, words, seconds)
        except asyncio.CancelledError:
            channel.close()
            raise

    async def hang_up(self) -> None:
        """Drop idle connections: after a fail-over the address may lead to another server."""
        for channel in self.idle.copy():
            channel.close()
        if self._cluster:
            with suppress(RedisError, OSError):
                await self._cluster.aclose()

    async def stop(self) -> None:
        """Drop all connections."""
        for channel in list(self._channels):
            channel.close()
        await self.hang_up()
        await asyncio.sleep(0)  # the turn of the event loop in which the connections close


def is_lost(error: Exception) -> bool:
    """Whether the connection was lost, so that a new one may work."""
    return isinstance(error, LostConnection | ConnectionResetError)


def describe_trouble(error: Exception) -> str:
    """What an error of the client says about Redis: one that answered with an error is not away."""
    text = f"{type(error).__name__}: {error}"
    if not isinstance(error, ResponseError | BusyLoadingError | AuthenticationError):
        return f"is away ({text})"
    refused = "writes" if any(word in text for word in _REFUSES_WRITES) else "commands"
    return f"refuses {refused} ({text.removeprefix('ResponseError: ')})"


async def reply_within(seconds: float, wanted: Awaitable[Any]) -> Any:
    """The result of `wanted`, if it arrives within so many seconds.

    `asyncio.timeout` would also cancel a reader whose reply arrived in time but is not read yet because this
    process was busy. An overloaded gateway would then take Redis for slow.

    Raises: TimeoutError.
    """
    task = asyncio.ensure_future(wanted)
    try:
        await asyncio.wait([task], timeout=seconds)
        for _ in range(GRACE_TURNS):
            if task.done():
                break
            await asyncio.sleep(0)
        if not task.done():
            raise TimeoutError("no reply in time")
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
