"""Tests the promise of the budget with real processes: `python -m tests.budget.prove --help`.

Gateway processes share one Redis. Their clients read streams and whole responses, and leave at random
moments. Meanwhile gateways are killed by SIGKILL; so is Redis, which is started again. Its append-only file
logs every settlement and every state that the scripts wrote, across restarts. This module replays that file
with none of the gateway's code.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import random
import signal
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from tests.budget.append_only import WINDOWS, Log, append_only_files, replay
from tests.redis import RealRedis, real_redis
from tests.serving import Process, configuration, free_port, process

LEASE = 4


class Load:
    """Clients that send requests, read for a while, and leave at random."""

    def __init__(self, seed: int, streamed: float = 0.8, *, calm: bool = False) -> None:
        """streamed: share of requests that stream. calm: nobody leaves, and no backend breaks."""
        self.random, self.streamed, self.calm = random.Random(seed), streamed, calm
        self.outcomes: dict[str, int] = defaultdict(int)

    async def client(self, urls: list[str], end: float) -> None:
        async with aiohttp.ClientSession() as http:
            while time.monotonic() < end:
                try:
                    async with asyncio.timeout(8):
                        await self.ask(http, self.random.choice(urls))
                except (aiohttp.ClientError, OSError, TimeoutError):
                    self.outcomes["broken"] += 1
                    await asyncio.sleep(0.5)

    async def ask(self, http: aiohttp.ClientSession, url: str) -> None:
        chance = self.random
        stream = chance.random() < self.streamed
        fault: dict[str, Any] = {"pace_ms": chance.choice([0, 2, 20]), "tokens": chance.randint(1, 30)}
        if not self.calm and chance.random() < 0.1:
            fault |= {"after": chance.randint(0, 20), "end": chance.choice(["cut", "reset", "stall"])}
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": "prove that " * chance.randint(1, 20)}],
            "stream": stream,
            "metadata": {"fault": json.dumps(fault)},
        }
        leaves = not self.calm and chance.random() < 0.3
        async with http.post(f"{url}/v1/chat/completions", json=body) as response:
            self.outcomes[str(response.status)] += 1
            if response.status != 200:
                await response.read()
                await asyncio.sleep(0.5 + chance.random() * 1.5)
            elif leaves:
                self.outcomes["left"] += 1
                await response.content.read(chance.randint(1, 3000))
                response.close()
            else:
                with contextlib.suppress(aiohttp.ClientError):
                    await response.read()


@dataclass
class Report:
    """The result of a run. The first five numbers must be 0."""

    states_over_cap: int
    tokens_over_any_window: int
    sums_wrong: int
    reservations_leaked: int
    tokens_lost: int
    tokens_logged: int
    """Completion tokens in the gateways' access logs."""
    tokens_counted: int
    """Tokens settled in Redis. Requests of dead gateways and unknown lengths count on the safe side."""
    states: int
    granted: int
    outcomes: dict[str, int]
    """How often each status came, and how often a client left or its connection broke."""

    @property
    def holds(self) -> bool:
        return not any(dataclasses.astuple(self)[:5])


async def prove(
    gateways: int,
    clients: int,
    seconds: float,
    kills: int,
    restarts: int,
    *,
    seed: int = 1,
    streamed: float = 0.8,
    calm: bool = False,
) -> Report:
    """Run the load with so many clients per gateway, and check the log."""
    with real_redis(appendonly="yes", appendfsync="no", auto_aof_rewrite_percentage="0") as redis:
        load = Load(seed, streamed, calm=calm)
        with tempfile.TemporaryDirectory(prefix="tm") as folder:
            spent = await _run(load, redis, Path(folder), gateways, clients, seconds, kills, restarts)
        with contextlib.closing(redis.client()) as client:
            held = sum(int(client.hget(key, "V") or 0) for key in _windows(client))
        logs = replay(append_only_files(redis.folder))
    return _report(load, logs, held, spent)


def _windows(client: Any) -> list[bytes]:
    names = tuple(f"{{thinkmeter}}:{name}:".encode() for name in WINDOWS)
    return [k for k in client.scan_iter("*") if k.startswith(names) and not k.endswith(b":leases")]


def _report(load: Load, logs: dict[str, Log], held: int, spent: dict[str, int]) -> Report:
    long = logs["long"]
    caps = {name: cap for name, (_, cap) in WINDOWS.items()}
    leaked = set.union(*(log.granted - log.settled - log.lapsed for log in logs.values()))
    counted = sum(long.tokens.values())
    return Report(
        states_over_cap=sum(log.over_cap for log in logs.values()),
        tokens_over_any_window=sum(max(log.most_in_a_window() - caps[name], 0) for name, log in logs.items()),
        sums_wrong=sum(log.sums_wrong for log in logs.values()),
        reservations_leaked=len(leaked) + held,
        # a killed gateway's reservations expire: they count as the tokens that it last reported, or in full
        tokens_lost=max(sum(spent.values()) - counted, 0),
        tokens_logged=sum(spent.values()),
        tokens_counted=counted,
        states=sum(log.states for log in logs.values()),
        granted=len(long.granted),
        outcomes=dict(load.outcomes),
    )


def _settings(redis: RealRedis, backend: str) -> dict[str, Any]:
    budgets = [
        {"name": name, "window": seconds, "tokens": cap, "when_redis_fails": "closed"}
        for name, (seconds, cap) in WINDOWS.items()
    ]
    settings = configuration(backend, redis={"url": redis.url}, head="baseline", price=0, budgets=budgets)
    return settings | {
        "server": {"access_log": True, "drain_timeout": 5},
        "reservations": {"lease": LEASE, "shortest_answer": 16},
        "timeouts": {"idle": 2},
    }


async def _run(
    load: Load, redis: RealRedis, folder: Path, gateways: int, clients: int, seconds: float, kills: int,
    restarts: int,
) -> dict[str, int]:  # fmt: skip
    port = free_port()
    command = (sys.executable, "-m", "tests.fakes.backend", "--port", str(port), "--served-name", "tiny")
    backend = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    settings = _settings(redis, f"http://127.0.0.1:{port}")
    try:
        async with contextlib.AsyncExitStack() as stack:
            running = [await gateway_process(stack, settings, folder / str(n)) for n in range(gateways)]
            end = time.monotonic() + seconds
            urls = [gateway.url for gateway in running]
            tasks = [asyncio.create_task(load.client(urls, end)) for _ in range(clients * gateways)]
            await _disturb(running, redis, seconds, kills, restarts)
            await asyncio.gather(*tasks)
            for gateway in running:
                if gateway.process.returncode is None:
                    gateway.process.send_signal(signal.SIGTERM)
            await asyncio.gather(*(gateway.process.wait() for gateway in running))
            await _let_leases_end(stack, settings, folder / "last")
            return {str(g.access_log): _spent(g.access_log) for g in running}
    finally:
        backend.kill()
        await backend.wait()


async def gateway_process(
    stack: contextlib.AsyncExitStack, settings: dict[str, Any], folder: Path
) -> Process:
    folder.mkdir()
    return await stack.enter_async_context(process(settings, folder, port=free_port()))


async def _disturb(
    running: list[Process], redis: RealRedis, seconds: float, kills: int, restarts: int
) -> None:
    """Kill gateways, the last first, and restart Redis, spread evenly over the time."""
    events = ["kill"] * kills + ["restart"] * restarts
    random.Random(len(events)).shuffle(events)
    victims = list(running)
    for event in events:
        await asyncio.sleep(seconds / (len(events) + 1))
        if event == "kill":
            victims.pop().process.kill()
        else:
            await asyncio.to_thread(redis.stop, signal.SIGKILL)
            await asyncio.to_thread(redis.start)


async def _let_leases_end(stack: contextlib.AsyncExitStack, settings: dict[str, Any], folder: Path) -> None:
    """Send two requests to a new gateway: the first begins the grace period, the second expires leases."""
    gateway = await gateway_process(stack, settings, folder)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    async with aiohttp.ClientSession() as http, asyncio.timeout(90):
        for seconds in (LEASE + 0.5, LEASE / 2 + 0.5):
            await asyncio.sleep(seconds)
            status = 0
            while status != 200:
                async with http.post(f"{gateway.url}/v1/chat/completions", json=body) as response:
                    status = response.status
                await asyncio.sleep(0.1)
    gateway.process.send_signal(signal.SIGTERM)
    await gateway.process.wait()


def _spent(access_log: Path) -> int:
    """Completion tokens of all lines in an access log."""
    lines = [line for line in access_log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return sum(orjson.loads(line).get("completion_tokens") or 0 for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gateways", type=int, default=4)
    parser.add_argument("--clients", type=int, default=200, help="for each gateway")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--restarts", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    report = asyncio.run(prove(**vars(parser.parse_args())))
    print(json.dumps(dataclasses.asdict(report), indent=2))
    sys.exit(0 if report.holds else 1)


if __name__ == "__main__":
    main()
