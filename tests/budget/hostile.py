"""Clients that want more than the budget allows: `python -m tests.budget.hostile --help`.

Gateway processes share one Redis, in front of a backend that keeps its own count of the tokens it generates.
The clients draw at random from all ways to spend uncounted: they decide their own lengths, silence the count,
leave, do not read, and send images and audio; the backend's answers cannot be read at times. Then the tokens
that the backend says it generated within any stretch of a window's length are compared with its limit.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import dataclasses
import json
import signal
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.budget.prove import Load, gateway_process
from tests.openai_api.test_images import png
from tests.redis import RealRedis, real_redis
from tests.serving import Process, configuration, free_port

KEY = "hostile"
WINDOWS = {
    "short": (3, 15_000, "completion"),
    "long": (20, 30_000, "completion"),
    "all": (10, 100_000, "total"),
}
"""Length in seconds, limit, and what is counted."""
TIERS = {
    "direct": {"thinking": 0, "answer": 400},
    "short": {"thinking": 200, "answer": 400},
    "long": {"thinking": 1500, "answer": 400},
}
OVERRUN = 0.1  # the default of `reservations.p95_overrun`

FIELDS: list[dict[str, Any]] = [
    *({}, {}, {"ignore_eos": True}, {"min_tokens": 300}, {"n": 2}, {"n": 3, "ignore_eos": True}),
    *(
        {"stream_interval": 10**6},
        {"stop": "q" * 5000},
        {"stop": ["\n", "q" * 300]},
        {"use_beam_search": True},
    ),
    *({"include_reasoning": False}, {"tools": [{"type": "function", "function": {"name": "f"}}]}),
    *({"stream_options": {"include_usage": False}}, {"temperature": 1.9}, {"a_field_of_next_year": True}),
]
ANSWERS = ["type", "json", "usage", "cut"]


class Hostile(Load):
    """Clients that draw from everything that could be spent uncounted."""

    def body(self) -> dict[str, Any]:
        chance = self.random
        fields: dict[str, Any] = {}
        for _ in range(chance.choice([1, 1, 2, 3])):
            fields |= chance.choice(FIELDS)
        stream = chance.random() < 0.75
        if not stream:
            fields.pop("stream_options", None)
        if chance.random() < 0.15:
            fields["metadata"] = {"answer": chance.choice(ANSWERS)}
        parts: list[dict[str, Any]] = [
            {"type": "text", "text": chance.choice(["", "at length: "]) + "why? " * 20}
        ]
        for _ in range(chance.choice([0, 0, 0, 0, 0, 0, 1, 2])):
            parts.append(self.medium())
        messages = [{"role": "user", "content": parts if len(parts) > 1 else parts[0]["text"]}]
        model = "tiny" + chance.choice(["", ":direct", ":direct", ":short", ":long"])
        return {"model": model, "stream": stream, "messages": messages} | fields

    def medium(self) -> dict[str, Any]:
        kind = self.random.choice(["small", "large", "elsewhere", "audio"])
        if kind == "audio":
            return {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
        side = 200 if kind == "small" else 3500
        url = "data:image/png;base64," + base64.b64encode(png(side, side)).decode()
        return {"type": "image_url", "image_url": {"url": "http://x/y.png" if kind == "elsewhere" else url}}

    async def ask(self, http: aiohttp.ClientSession, url: str) -> None:
        chance = self.random
        async with http.post(f"{url}/v1/chat/completions", json=self.body()) as response:
            self.outcomes[str(response.status)] += 1
            if response.status != 200:
                await response.read()
                await asyncio.sleep(chance.random() * 0.5)
                return
            how = chance.choice(["reads", "reads", "leaves", "leaves late", "does not read"])
            self.outcomes[how] += 1
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                if how == "reads":
                    await response.read()
                elif how == "leaves":
                    await response.content.read(chance.randint(1, 3000))
                else:
                    async with asyncio.timeout(chance.random() * 4):
                        await (response.read() if how == "leaves late" else asyncio.Event().wait())
            response.close()


@dataclass
class Measured:
    """The result of a run."""

    tokens_over: dict[str, int]
    """By window: generated within its length beyond what it may hold, at most."""
    most: dict[str, int]
    """By window: the most tokens generated within its length."""
    reserved: dict[str, int]
    """By window: tokens still reserved at the end."""
    generated: int
    settled: int
    """Completion tokens generated and settled, all together."""
    outcomes: dict[str, int]

    @property
    def holds(self) -> bool:
        return not any(self.tokens_over.values()) and not any(self.reserved.values())


def most_in_a_window(log: list[list[int]], seconds: float, count: str) -> int:
    """The most tokens in any stretch of so many seconds. log: hundredths of a second, completion, prompt."""
    most = total = 0
    waiting: deque[tuple[int, int]] = deque()
    for at, completion, prompt in log:
        tokens = completion + (prompt if count == "total" else 0)
        waiting.append((at, tokens))
        total += tokens
        while waiting[0][0] <= at - seconds * 100:
            total -= waiting.popleft()[1]
        most = max(most, total)
    return most


async def attack(
    gateways: int, clients: int, seconds: float, *, reserve: str = "strict", seed: int = 1
) -> Measured:
    """Run the clients, so many for each gateway, and compare what was generated with the limits."""
    load = Hostile(seed)
    with real_redis() as redis, tempfile.TemporaryDirectory(prefix="tm") as folder:
        port = free_port()
        command = (sys.executable, "-m", "tests.fakes.generating", "--port", str(port))
        backend = await asyncio.create_subprocess_exec(*command)
        try:
            async with contextlib.AsyncExitStack() as stack:
                settings = _settings(redis, f"http://127.0.0.1:{port}", reserve)
                running = [
                    await gateway_process(stack, settings, Path(folder) / str(number))
                    for number in range(gateways)
                ]
                end = time.monotonic() + seconds
                urls = [gateway.url for gateway in running]
                await asyncio.gather(*(load.client(urls, end) for _ in range(clients * gateways)))
                await asyncio.sleep(1)
                return await _measure(running, port, load, reserve)
        finally:
            backend.send_signal(signal.SIGTERM)
            await backend.wait()


async def _measure(running: list[Process], port: int, load: Hostile, reserve: str) -> Measured:
    async with aiohttp.ClientSession() as http:
        async with http.get(f"http://127.0.0.1:{port}/generated") as response:
            log = await response.json()
        admin = {"authorization": f"Bearer {KEY}"}
        async with http.get(f"{running[0].url}/admin/budgets", headers=admin) as response:
            states = {state["budget"]: state for state in (await response.json())["budgets"]}
    beyond = len(running) * OVERRUN if reserve == "p95" else 0
    most = {name: most_in_a_window(log, length, count) for name, (length, _, count) in WINDOWS.items()}
    return Measured(
        tokens_over={
            name: max(most[name] - int(cap * (1 + beyond)), 0) for name, (_, cap, _) in WINDOWS.items()
        },
        most=most,
        reserved={name: state["reserved"] for name, state in states.items()},
        generated=sum(completion for _, completion, _ in log),
        settled=states["ever"]["settled"],
        outcomes=dict(load.outcomes),
    )


def _settings(redis: RealRedis, backend: str, reserve: str) -> dict[str, Any]:
    budgets = [
        {"name": name, "window": length, "tokens": cap, "count": count, "reserve": reserve}
        for name, (length, cap, count) in WINDOWS.items()
    ]
    budgets.append({"name": "ever", "window": "1d", "tokens": 10**9})
    model = {"tiers": TIERS}
    settings = configuration(
        backend, model=model, redis={"url": redis.url}, head="general", budgets=budgets, admin={"key": KEY}
    )
    return settings | {"breaker": {"failures": 10**6}, "timeouts": {"idle": 5}}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gateways", type=int, default=4)
    parser.add_argument("--clients", type=int, default=25, help="for each gateway")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--reserve", choices=["strict", "p95"], default="strict")
    parser.add_argument("--seed", type=int, default=1)
    measured = asyncio.run(attack(**vars(parser.parse_args())))
    print(json.dumps(dataclasses.asdict(measured), indent=2))
    sys.exit(0 if measured.holds else 1)


if __name__ == "__main__":
    main()
