"""The connection to Redis, and the only importer of its client: scripts, timeouts and a circuit breaker.

After two failures in a row, Redis counts as away (`up` is False) until a probe in the background succeeds.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis, RedisCluster
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

from gateway.circuit_breaker import CircuitBreaker
from gateway.store.commands import is_reply
from gateway.store.embedded import RedisServerError

log = logging.getLogger("thinkmeter.redis")

_PROBE_SECONDS = 0.25  # between two attempts to reach a Redis that is away
_LOG_SECONDS = 10.0  # at most one outage is logged in so many seconds
_SET_BACK_MS = 5_000  # no reply takes so long, so a clock that seems to have lost more was set back
_GRACE = 5  # turns of the event loop in which to read a reply that arrived just before the timeout
_STANDALONE = frozenset(["pace"])  # scripts that do without clock.lua and window.lua

_REFUSES_WRITES = ("MISCONF", "OutOfMemoryError", "-OOM", "ReadOnlyError", "-READONLY", "NOREPLICAS")
"""Words of the errors with which a server that is up refuses to write, directly or in a script."""

Wait = Callable[[float, Awaitable[Any]], Awaitable[Any]]
"""Waits for a result for so many seconds. Raises: TimeoutError."""


class StoreUnavailable(Exception):  # noqa: N818 - named after what happened
    """Redis did not answer or returned an error; whether it applied the command is unknown."""


class ConnectionBroken(StoreUnavailable):
    """The connection was lost, as idle ones are when the server restarts; a new one may work."""


def sources(clock: str | None = None) -> dict[str, str]:
    """The scripts by name, each with clock.lua and window.lua in front. clock: Lua in place of clock.lua."""
    folder = files("gateway.store").joinpath("lua")
    texts = {item.name.removesuffix(".lua"): item.read_text() for item in folder.iterdir()}
    own = texts.pop("clock")
    shared = (clock or own) + texts.pop("window")
    return {script: text if script in _STANDALONE else shared + text for script, text in texts.items()}


class RedisConnection:
    """The Redis client of one process."""

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
        wait: Wait | None = None,
    ) -> None:
        """timeout: seconds to connect, and for a reply. clock: Lua source in place of clock.lua.

        observe: called after every operation with its name and its seconds, or None if it failed.
        revive: called before Redis is tried again. wait: in place of `reply_within`.
        """
        self.timeout = timeout
        self._url, self._cluster = url, cluster
        self._probe = f"{{{prefix}}}:probe"
        self._observe = observe
        self._revive = revive
        self._wait = wait or reply_within
        self._scripts = {
            script: (text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
            for script, text in sources(clock).items()
        }
        self._client: Redis | RedisCluster | None = None
        self._breaker = CircuitBreaker(limit=2)
        self._ahead: float | None = None
        """The server's clock minus our monotonic one, at most, in milliseconds; None if unknown."""
        self._heartbeat: asyncio.Task[None] | None = None
        self.trouble = "is not connected"
        """What is wrong with Redis while it is not `up`: continues a sentence that begins with its name."""
        self._logged_at: float | None = None
        """When the last outage was logged."""
        self._logged = False
        """Whether the present outage was logged."""

    @property
    def up(self) -> bool:
        """Whether Redis answers, as far as this process knows. If not, callers must not wait for it."""
        return self._client is not None and self._breaker.opened_at is None

    async def start(self) -> None:
        """Connect. If Redis is away, keep trying in the background."""
        self._connect()
        self._heartbeat = asyncio.create_task(self._keep_trying(), name="redis-heartbeat")
        if not await self._try():
            self._breaker.opened_at = time.monotonic()
            self._log_outage()
        await self._warn_of_eviction()

    def _connect(self) -> None:
        self._client = _client(self._url, self.timeout, cluster=self._cluster)

    async def _warn_of_eviction(self) -> None:
        """Warn of a server that evicts keys when it is full: budgets would lose their counts unnoticed."""
        if not self.up or not isinstance(self._client, Redis):
            return
        with suppress(RedisError, OSError, TimeoutError):  # we may lack the permission for INFO
            memory = await self._wait(self.timeout, self._client.info("memory"))
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
        """When a call that starts now times out, in milliseconds of the server's clock; 0 if unknown.

        A server that was paused later executes what it finds in its buffers. It must not reserve tokens for
        callers that have given up.
        """
        if self._ahead is None:
            return 0
        return int(self._ahead + (time.monotonic() + self.timeout) * 1000)

    def forget_clock(self) -> None:
        """Forget the server's clock until the next reply, which may come from another server."""
        self._ahead = None

    async def call(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> list[Any]:
        """Run a script. Raises: StoreUnavailable."""
        text, digest = self._scripts[script]
        begun = time.perf_counter()
        valid = partial(is_reply, script, keys)
        try:
            try:
                reply = await self.command("EVALSHA", digest, len(keys), *keys, *arguments, valid=valid)
            except NoScriptError:
                reply = await self.command("EVAL", text, len(keys), *keys, *arguments, valid=valid)
        except StoreUnavailable:
            self._observe(script, None)
            raise
        self._observe(script, time.perf_counter() - begun)
        if isinstance(reply, list):
            self._ahead = _clock_ahead(self._ahead, reply[0] - time.monotonic() * 1000)
        return reply if isinstance(reply, list) else [reply]

    async def command(self, *words: Any, valid: Callable[[Any], bool] | None = None) -> Any:
        """Run any command. valid: whether its reply makes sense. Raises: StoreUnavailable, NoScriptError."""
        if self._client is None:
            raise StoreUnavailable("Redis is not connected")
        try:
            reply = await self._wait(self._patience(), self._client.execute_command(*words))
            if valid and not valid(reply):
                raise ResponseError(f"its reply is not that of the script: {str(reply)[:80]}")
        except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
            if isinstance(error, NoScriptError) and words[0] == "EVALSHA":
                raise
            self._failed(error)
            if isinstance(error, LostConnection):
                raise ConnectionBroken(f"{type(error).__name__}: {error}") from error
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
        if self._breaker.opened_at is not None and self._logged:
            log.warning("Redis is back")
        self._breaker.record_success()
        return reply

    def _patience(self) -> float:
        """Seconds to wait for a reply: twice the timeout if a connection may have to be made first."""
        return self.timeout if self._ahead is not None and not self._cluster else 2 * self.timeout

    def _failed(self, error: Exception) -> None:
        before = self.up
        self._breaker.record_failure(time.monotonic())
        self.forget_clock()
        self.trouble = describe_trouble(error)
        if before and not self.up:
            self._log_outage()

    def _log_outage(self) -> None:
        now = time.monotonic()
        self._logged = self._logged_at is None or now - self._logged_at >= _LOG_SECONDS
        if self._logged:
            self._logged_at = now
            log.error("Redis %s: each budget follows its `when_redis_fails`", self.trouble)

    async def _keep_trying(self) -> None:
        while True:
            await asyncio.sleep(_PROBE_SECONDS)
            if not self.up and not await self._try() and not self._logged:
                self._log_outage()

    async def _try(self) -> bool:
        """Whether Redis accepts writes; a read-only replica does not count."""
        try:
            if self._revive and not self.up:
                await self._revive()
            await self._hang_up()
            await self.call("settle", [self._probe], [0, 1000, 0, 0])  # no entries, but it writes its key
        except (StoreUnavailable, RedisServerError) as error:
            if isinstance(error, RedisServerError):
                self.trouble = f"is away ({error})"
            log.debug("Redis still %s", self.trouble)
            return False
        except Exception:  # an unforeseen error must not end the heartbeat
            log.exception("probing Redis failed")
            return False
        return True

    async def _hang_up(self) -> None:
        """Drop idle connections: after a fail-over the address may lead to another server."""
        with suppress(RedisError, OSError):  # a hung server does not answer the close_notify of TLS
            if isinstance(self._client, RedisCluster):
                await self._client.aclose()
            elif self._client:
                await self._client.connection_pool.disconnect(inuse_connections=False)


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


def _clock_ahead(before: float | None, measured: float) -> float:
    """How far the server's clock is ahead of ours, in milliseconds, after another measurement.

    A measurement is too low by the time that the reply took to get here, so the highest is the best. One that
    is much lower means that the clock was set back.
    """
    return measured if before is None or measured < before - _SET_BACK_MS else max(before, measured)


def _client(url: str, timeout: float, *, cluster: bool) -> Redis | RedisCluster:
    options: dict[str, Any] = {
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    if cluster:  # the client tries another node only after its own timeout
        return RedisCluster.from_url(url, socket_timeout=timeout, require_full_coverage=False, **options)
    return Redis.from_url(url, socket_timeout=None, **options)  # see `reply_within`
