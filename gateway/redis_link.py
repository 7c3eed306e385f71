"""The connection to Redis, and the one importer of its client: scripts, timeouts, and a breaker.

A Redis that is slow or away fails at once after two failures in a row, until a try beside the requests
finds it well again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from gateway.circuit_breaker import Breaker
from gateway.redis_server import RedisServerError

log = logging.getLogger("thinkmeter.redis")

_BEAT = 0.25  # seconds between two tries of a Redis that is away
_GRACE = 5  # rounds of the event loop in which what has arrived is read
_ALONE = frozenset(["pace"])  # scripts that need nothing of window.lua


class StoreUnavailable(Exception):  # noqa: N818 - named after what happened
    """Redis did not answer, or cannot: what would have been decided is not known."""


class ConnectionBroken(StoreUnavailable):
    """The connection broke, as kept ones do when a server restarts; another may work."""


def sources(clock: str | None = None) -> dict[str, str]:
    """The scripts by phase; `clock` replaces clock.lua."""
    folder = files("gateway").joinpath("lua")
    texts = {item.name.removesuffix(".lua"): item.read_text() for item in folder.iterdir()}
    own = texts.pop("clock")
    shared = (clock or own) + texts.pop("window")
    return {phase: text if phase in _ALONE else shared + text for phase, text in texts.items()}


class Link:
    """One process's client of Redis."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        timeout: float,
        cluster: bool = False,
        clock: str | None = None,
        observe: Callable[[str, float | None], None] = lambda _operation, _seconds: None,
        revive: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`timeout` in seconds, to connect and for a reply. `observe` is told of every operation and its
        seconds, None when it failed. `revive` is tried when Redis is away."""
        self.timeout = timeout
        self._url, self._cluster = url, cluster
        self._probe = f"{{{prefix}}}:probe"
        self._observe = observe
        self._revive = revive
        self._scripts = {
            phase: (text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
            for phase, text in sources(clock).items()
        }
        self._client: Redis | RedisCluster | None = None
        self._breaker = Breaker(limit=2)
        self._ahead: float | None = None
        """Server's clock minus ours in milliseconds, at least."""
        self._heartbeat: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether Redis is asked at all."""
        return self._client is not None and self._breaker.opened_at is None

    async def start(self) -> None:
        """Connect, or say that Redis is away and go on trying."""
        self._client = _client(self._url, self.timeout, cluster=self._cluster)
        self._heartbeat = asyncio.create_task(self._keep_trying(), name="redis-heartbeat")
        if not await self._try():
            self._breaker.opened_at = time.monotonic()
            log.warning("Redis is away: the budgets' `when_redis_fails` holds until it comes")
        await self._warn_of_eviction()

    async def _warn_of_eviction(self) -> None:
        """A full server that evicts keys forgets tokens without a word; many rented ones are set so."""
        if not self.up or not isinstance(self._client, Redis):
            return
        with suppress(RedisError, OSError, TimeoutError):  # it need not be allowed to us
            memory = await _within(self.timeout, self._client.info("memory"))
            if memory.get("maxmemory") and (policy := memory.get("maxmemory_policy")) != "noeviction":
                log.warning(
                    "Redis may evict the budgets: set its maxmemory-policy to noeviction, not %s", policy
                )

    async def stop(self) -> None:
        if self._heartbeat:
            self._heartbeat.cancel()
            await asyncio.gather(self._heartbeat, return_exceptions=True)
        if self._client:
            await self._client.aclose()

    def deadline(self) -> int:
        """When the callers of now give up, by the server's clock in milliseconds; 0 while that is unknown.

        What a paused server finds in its buffers afterwards must reserve nothing.
        """
        if self._ahead is None:
            return 0
        return int(self._ahead + (time.monotonic() + self.timeout) * 1000)

    async def call(self, phase: str, keys: Sequence[str], arguments: Sequence[Any]) -> list[Any]:
        """Run a script; raises StoreUnavailable."""
        text, digest = self._scripts[phase]
        begun = time.perf_counter()
        try:
            try:
                reply = await self.command("EVALSHA", digest, len(keys), *keys, *arguments)
            except NoScriptError:
                reply = await self.command("EVAL", text, len(keys), *keys, *arguments)
        except StoreUnavailable:
            self._observe(phase, None)
            raise
        self._observe(phase, time.perf_counter() - begun)
        if isinstance(reply, list):
            ahead = reply[0] - time.monotonic() * 1000  # too small by what the reply took, and waited here
            self._ahead = ahead if self._ahead is None else max(ahead, self._ahead)
        return reply if isinstance(reply, list) else [reply]

    async def command(self, *words: Any) -> Any:
        """Any command; raises StoreUnavailable, or NoScriptError."""
        if self._client is None:
            raise StoreUnavailable("Redis is not connected")
        try:
            reply = await _within(self._patience(), self._client.execute_command(*words))
        except NoScriptError:
            raise
        except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
            self._failed(error)
            if isinstance(error, LostConnection):
                raise ConnectionBroken(f"{type(error).__name__}: {error}") from error
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
        self._breaker.succeed()
        return reply

    def _patience(self) -> float:
        """Seconds for a reply; twice as many where a connection is made, or another node asked, first."""
        return self.timeout if self._ahead is not None and not self._cluster else 2 * self.timeout

    def _failed(self, error: Exception) -> None:
        before = self.up
        self._breaker.fail(time.monotonic())
        self._ahead = None  # another server may answer next
        if before and not self.up:
            log.error("Redis is away (%s: %s)", type(error).__name__, error)

    async def _keep_trying(self) -> None:
        while True:
            await asyncio.sleep(_BEAT)
            if not self.up and await self._try():
                log.warning("Redis is back")

    async def _try(self) -> bool:
        """Whether Redis takes writes, not only whether it is there."""
        try:
            if self._revive and not self.up:
                await self._revive()
            await self._hang_up()
            await self.call("settle", [self._probe], [0, 1000, 0, 0])
        except (StoreUnavailable, RedisServerError) as error:
            log.debug("Redis stays away: %s", error)
            return False
        except Exception:  # whatever it is, the next beat tries again
            log.exception("Redis cannot be tried")
            return False
        return True

    async def _hang_up(self) -> None:
        """Drop idle connections: another server may have the address by now, or the cluster another shape."""
        with suppress(RedisError, OSError):  # a hung server may not answer the goodbye of TLS
            if isinstance(self._client, RedisCluster):
                await self._client.aclose()
            elif self._client:
                await self._client.connection_pool.disconnect(inuse_connections=False)


async def _within(seconds: float, wanted: Awaitable[Any]) -> Any:
    """The result, or TimeoutError; a reply that is there counts, however late we come to read it.

    asyncio's own timeout cancels a reader whose reply came while this process was busy elsewhere, so that an
    overloaded gateway would take Redis for slow.
    """
    task = asyncio.ensure_future(wanted)
    try:
        await asyncio.wait([task], timeout=seconds)
        for _ in range(_GRACE):
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


def _client(url: str, timeout: float, *, cluster: bool) -> Redis | RedisCluster:
    options: dict[str, Any] = {
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    if cluster:  # it asks another node once it has given up on one, so it must be the first to give up
        return RedisCluster.from_url(url, socket_timeout=timeout, require_full_coverage=False, **options)
    return Redis.from_url(url, socket_timeout=None, **options)  # see `_within`
