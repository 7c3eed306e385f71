"""The connection to Redis: scripts, timeouts and a circuit breaker.

After two failures in a row, Redis counts as away (`up` is False) until a probe in the background succeeds.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from gateway.circuit_breaker import CircuitBreaker
from gateway.store.channel import pack
from gateway.store.client import FAILURES, NoScriptError, RedisClient, WrongReply, describe_trouble, is_lost
from gateway.store.commands import JournalPart, exchange_call, is_reply, unpacked
from gateway.store.embedded import RedisServerError
from gateway.store.scripts import sources

log = logging.getLogger("thinkmeter.redis")

_PROBE_SECONDS = 0.25  # between two attempts to reach a Redis that is away
_LOG_SECONDS = 10.0  # at most one outage is logged in so many seconds
_SET_BACK_MS = 5_000  # no reply takes so long, so a clock that seems to have lost more was set back


class StoreUnavailable(Exception):  # noqa: N818 - named after what happened
    """Redis did not answer or returned an error; whether it applied the command is unknown."""


class ConnectionBroken(StoreUnavailable):
    """The connection was lost, as idle ones are when the server restarts; a new one may work."""


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
    ) -> None:
        """timeout: seconds to connect, and for a reply. clock: Lua source in place of clock.lua.

        observe: called after every operation with its name and its seconds, or None if it failed.
        revive: called before Redis is tried again.
        """
        self.timeout = timeout
        self._url, self._cluster = url, cluster
        self._probe = f"{{{prefix}}}:probe"
        self._observe = observe
        self._revive = revive
        self._scripts = {
            script: (text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
            for script, text in sources(clock).items()
        }
        self._client: RedisClient | None = None
        self._calls: set[asyncio.Task[None]] = set()
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
        self._client = RedisClient(self._url, self.timeout, cluster=self._cluster)

    async def _warn_of_eviction(self) -> None:
        """Warn of a server that evicts keys when it is full: budgets would lose their counts unnoticed."""
        if not self.up or self._cluster:
            return
        text = await self._answer("INFO", "memory")
        if not isinstance(text, bytes):
            return  # we may lack the permission
        memory = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
        policy = memory.get("maxmemory_policy", "")
        if memory.get("maxmemory", "0") != "0" and policy != "noeviction":
            log.warning("Redis may evict the budgets: set its maxmemory-policy to noeviction, not %s", policy)

    async def stop(self) -> None:
        if self._heartbeat:
            self._heartbeat.cancel()
            await asyncio.gather(self._heartbeat, return_exceptions=True)
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        if self._client:
            await self._client.stop()

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

    async def call(
        self, script: str, keys: Sequence[str], arguments: Sequence[Any], operations: Sequence[str] = ()
    ) -> list[Any]:
        """Run a script. operations: what it is observed as, instead of its name. Raises: StoreUnavailable."""
        begun, (text, digest) = time.perf_counter(), self._scripts[script]
        words = (len(keys), *keys, *arguments)
        reply = await self._answer("EVALSHA", digest, *words)
        if isinstance(reply, NoScriptError):
            reply = await self._answer("EVAL", text, *words)
        return self._result(reply, script, keys, operations, begun)

    def begin(
        self,
        script: str,
        keys: Sequence[str],
        arguments: Sequence[Any],
        operations: Sequence[str],
        done: Callable[[list[Any] | StoreUnavailable], None],
    ) -> None:
        """As `call`, but gives the result to `done` as soon as it arrives, without a task if possible."""
        channel = self._client.idle.pop() if self._client and self._client.idle else None
        if channel is None:
            self._call_in_task(script, keys, arguments, operations, done)
            return
        begun = time.perf_counter()

        def replied(reply: Any) -> None:
            if isinstance(reply, NoScriptError):
                self._call_in_task(script, keys, arguments, operations, done)
                return
            try:
                result: list[Any] | StoreUnavailable = self._result(reply, script, keys, operations, begun)
            except StoreUnavailable as error:
                result = error
            done(result)

        data = pack("EVALSHA", self._scripts[script][1], len(keys), *keys, *arguments)
        channel.ask(data, self._patience(), replied)

    def _call_in_task(
        self,
        script: str,
        keys: Sequence[str],
        arguments: Sequence[Any],
        operations: Sequence[str],
        done: Callable[[list[Any] | StoreUnavailable], None],
    ) -> None:
        async def run() -> None:
            result: list[Any] | StoreUnavailable
            try:
                result = await self.call(script, keys, arguments, operations)
            except StoreUnavailable as error:
                result = error
            except Exception:
                log.exception("calling Redis failed")
                result = StoreUnavailable("an internal error")
            done(result)

        task = asyncio.create_task(run(), name="redis-call")
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    def _result(
        self, reply: Any, script: str, keys: Sequence[str], operations: Sequence[str], begun: float
    ) -> list[Any]:
        """What a script has returned. Raises: StoreUnavailable."""
        reply = unpacked(script, reply)
        if not isinstance(reply, Exception) and not is_reply(script, keys, reply):
            reply = WrongReply(f"its reply is not that of the script: {str(reply)[:80]}")
        seconds = None if isinstance(reply, Exception) else time.perf_counter() - begun
        for operation in operations or (script,):
            self._observe(operation, seconds)
        self._judge(reply)
        if not isinstance(reply, list):
            return [reply]
        self._ahead = _clock_ahead(self._ahead, reply[0] - time.monotonic() * 1000)
        return reply

    async def command(self, *words: Any) -> Any:
        """Run any command. Raises: StoreUnavailable."""
        reply = await self._answer(*words)
        self._judge(reply)
        return reply

    async def _answer(self, *words: Any) -> Any:
        """The reply of a command, or the error in its place. Raises: StoreUnavailable."""
        if self._client is None:
            raise StoreUnavailable("Redis is not connected")
        try:
            return await self._client.execute(words, self._patience())
        except FAILURES as error:
            return error

    def _judge(self, reply: Any) -> None:
        """Take note of a reply, or of the error in its place. Raises: StoreUnavailable."""
        if isinstance(reply, Exception):
            self._failed(reply)
            kind = ConnectionBroken if is_lost(reply) else StoreUnavailable
            raise kind(f"{type(reply).__name__}: {reply}") from reply
        if self._breaker.failures or self._breaker.opened_at is not None:
            if self._breaker.opened_at is not None and self._logged:
                log.warning("Redis is back")
            self._breaker.record_success()

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
            if self._client:
                await self._client.hang_up()
            probe = JournalPart(self._probe, 0, ())  # no entries, but it writes its key
            await self.call("exchange", *exchange_call(probe, caps=self._probe, lease_ms=1000))
        except (StoreUnavailable, RedisServerError) as error:
            if isinstance(error, RedisServerError):
                self.trouble = f"is away ({error})"
            log.debug("Redis still %s", self.trouble)
            return False
        except Exception:  # an unforeseen error must not end the heartbeat
            log.exception("probing Redis failed")
            return False
        return True


def _clock_ahead(before: float | None, measured: float) -> float:
    """How far the server's clock is ahead of ours, in milliseconds, after another measurement.

    A measurement is too low by the time that the reply took to get here, so the highest is the best. One that
    is much lower means that the clock was set back.
    """
    return measured if before is None or measured < before - _SET_BACK_MS else max(before, measured)
