"""Measures the cost of the budget: `python -m tests.bench.budget`.

It uses one process and one local Redis, and compares with a bare EVALSHA of the same client.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio
import uvloop

from gateway.store.commands import ReserveCommand, window
from gateway.store.store import Store
from tests.redis import binaries, delivered, real_redis, running_store

BARE = "return redis.call('INCR', KEYS[1])"
TIERS = tuple(16_384 - 1_256 * step for step in range(13))

Pair = Callable[[], Awaitable[Any]]


def budget_pair(store: Store, windows: int) -> Pair:
    """Reserve and settle under this many windows."""
    under = tuple(window("{thinkmeter}", f"b{i}", 60 * 24**i, "*", 10**12) for i in range(windows))
    ask = ReserveCommand(under, (0,) * windows, (TIERS,) * windows)
    spent = [(500, 450)] * windows

    async def pair() -> None:
        id_, _ = await store.reserve(ask)
        store.journal.settle(id_, under, spent)

    return pair


def waiting_pair(store: Store, windows: int) -> Pair:
    """As `budget_pair`, but also wait until Redis has confirmed the settlement. No request waits for that."""
    pair = budget_pair(store, windows)

    async def both() -> None:
        await pair()
        await store.journal.empty()

    return both


async def bare_pair(url: str) -> tuple[Pair, Any]:
    """Two EVALSHA of one INCR through redis-py, with one round trip each."""
    client = redis.asyncio.Redis.from_url(url, protocol=2)
    digest = await client.script_load(BARE)

    async def pair() -> None:
        await client.evalsha(digest, 1, "k")
        await client.evalsha(digest, 1, "k")

    return pair, client


async def latency(pair: Pair, seconds: float) -> dict[str, float]:
    """Milliseconds per call, one call at a time."""
    took = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        await pair()
        took.append(1000 * (time.perf_counter() - begun))
    cuts = statistics.quantiles(took, n=100)
    return {"median_ms": round(cuts[49], 3), "p99_ms": round(cuts[98], 3), "pairs": len(took)}


async def rate(pair: Pair, callers: int, seconds: float) -> float:
    """Pairs per second with this many callers."""
    done = 0
    begun = time.perf_counter()
    end = begun + seconds

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await pair()
            done += 1

    await asyncio.gather(*(caller() for _ in range(callers)))
    return done / (time.perf_counter() - begun)


async def processor(store: Store, url: str, windows: int, callers: int, seconds: float) -> dict[str, float]:
    """Microseconds of CPU time per pair, here and in Redis; independent of other load on the machine."""
    client = redis.asyncio.Redis.from_url(url, protocol=2)

    async def theirs() -> float:
        info = await client.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    await delivered(store, 60)
    ours_before, theirs_before, begun = time.process_time(), await theirs(), time.perf_counter()
    pairs = await rate(budget_pair(store, windows), callers, seconds)
    count = pairs * (time.perf_counter() - begun)
    await delivered(store, 60)
    ours, redis_time = time.process_time() - ours_before, await theirs() - theirs_before
    await client.aclose()
    return {"gateway_us": round(1e6 * ours / count, 1), "redis_us": round(1e6 * redis_time / count, 1)}


async def measure(server: str, seconds: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with real_redis(binaries()[server]) as running:
        async with running_store(running.url, timeout=10) as store:
            bare, client = await bare_pair(running.url)
            for _ in range(2):  # the first run is the warm-up
                found["one caller"] = {
                    "two bare EVALSHA": await latency(bare, seconds),
                    "reserve, 1 window": await latency(budget_pair(store, 1), seconds),
                    "reserve, 3 windows": await latency(budget_pair(store, 3), seconds),
                    "reserve + settle delivered, 1 window": await latency(waiting_pair(store, 1), seconds),
                }
                await delivered(store)
            rates: dict[str, Any] = {}
            for callers in (1, 8, 32, 128, 512, 1024):
                rates[str(callers)] = {}
                if callers <= 32:  # it opens a connection per caller
                    rates[str(callers)]["two bare EVALSHA"] = round(await rate(bare, callers, seconds))
                for windows in (1, 3):
                    pairs = await rate(budget_pair(store, windows), callers, seconds)
                    begun = time.perf_counter()
                    left = len(store.journal)
                    await delivered(store, 60)
                    rates[str(callers)][f"pairs, {windows} window{'s' * (windows > 1)}"] = round(pairs)
                    rates[str(callers)][f"journal left, {windows}"] = left
                    rates[str(callers)][f"journal ms, {windows}"] = round(
                        1000 * (time.perf_counter() - begun), 1
                    )
            found["pairs a second by callers"] = rates
            found["processor time of a pair"] = {
                f"{callers} callers, {windows} windows": await processor(
                    store, running.url, windows, callers, seconds
                )
                for callers in (1, 32, 128)
                for windows in (1, 3)
            }
            await client.aclose()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--server", choices=list(binaries()), default=next(iter(binaries())))
    parser.add_argument("--seconds", type=float, default=2, help="for each figure")
    options = parser.parse_args()
    print(json.dumps(uvloop.run(measure(options.server, options.seconds)), indent=2))


if __name__ == "__main__":
    main()
