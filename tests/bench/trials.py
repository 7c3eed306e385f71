"""The trials: what each sends, and how the backend responds."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from tests.bench.jobs import Job
from tests.bench.targets import MODEL, Target
from tests.fakes.fault import Fault
from tests.fakes.light import SERIAL, SERIAL_DIGITS

CHAT = "/v1/chat/completions"
TOKENS = 200
NUMBER = SERIAL.decode() + "0" * SERIAL_DIGITS
PROMPT = (
    f"{NUMBER}. A small bakery sells three kinds of bread. On Monday it sold 24 rye loaves, 36 wheat loaves "
    "and 18 spelt loaves. A rye loaf costs 4.20, a wheat loaf 3.60 and a spelt loaf 5.10. On Tuesday it sold "
    "a quarter fewer rye loaves, a third more wheat loaves and the same number of spelt loaves, but every "
    "loaf cost 10 percent less because of a spring sale. The flour for one loaf costs 0.90, the oven uses "
    "12.50 of gas each day, and the two bakers together earn 260 a day. First, work out the income of "
    "each day. Then work out the profit of each day after flour, gas and wages. Finally, say on which day "
    "the bakery earned more, by how much, and whether the sale was worth it. Show the steps of your "
    "calculation in short sentences."
)
SYSTEM = (
    "You are a careful assistant. Answer in plain English and check each number before you write it down."
)
LARGE_BYTES = 1_000_000
WHOLE = frozenset(("direct", "thinkmeter-all", "before-all", "vllm-router", "sglang-router", "smg"))
"""Targets of the trials with thousands of connections: the product whole and the routers in Rust."""
WORKERS = frozenset(("one-worker", "two-workers"))


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of measurement: the load, and how the backend responds."""

    name: str
    about: str
    connections: int
    seconds: float
    fault: Fault
    stream: bool = False
    warmup_s: float = 0.5
    spread_s: float = 0.0
    large: bool = False
    """With a prompt of 1 MB."""
    generator: str = "load"
    """The module that sends the load."""
    fresh: bool = False
    """Whether it gets a target of its own, because it measures memory."""
    only: frozenset[str] | None = None
    """The targets that it is for; None: all except those of the trial `workers`."""

    def fits(self, target: Target) -> bool:
        return target.name in self.only if self.only is not None else target.name not in WORKERS

    def job(self, target: Target, port: int, pids: list[int], bench_pids: list[int], *, core: int) -> Job:
        return Job(
            port=port,
            path=CHAT,
            headers=target.headers,
            body=json.dumps(body_of(stream=self.stream, large=self.large)),
            connections=self.connections,
            stream=self.stream,
            stamped=self.fault.stamp,
            expected=(self.fault.tokens or 0) if self.stream else 0,
            warmup_s=self.warmup_s,
            seconds=self.seconds,
            spread_s=self.spread_s,
            target_pids=pids,
            target_cores=list(target.cores),
            bench_pids=bench_pids,
            core=core,
        )


def body_of(*, stream: bool = False, large: bool = False) -> dict[str, Any]:
    prompt = PROMPT + (" " + PROMPT.partition(". ")[2]) * (LARGE_BYTES // len(PROMPT)) if large else PROMPT
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}],
        "temperature": 0.6,
        "top_p": 0.95,
        "max_tokens": 1024,
    }
    return body | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})


SHORT = Fault(tokens=64, reasoning=0)
PLAIN = Fault(tokens=TOKENS, reasoning=0)
WARM_UP = Trial(name="warm-up", about="not reported", connections=8, seconds=0, fault=SHORT, warmup_s=0)
WARM_UP_REQUESTS = 100
TRIALS = {
    trial.name: trial
    for trial in (
        Trial(
            name="requests", about="whole answers, 32 connections", connections=32, seconds=3, fault=SHORT
        ),
        Trial(name="latency", about="whole answers, 1 connection", connections=1, seconds=2, fault=SHORT),
        Trial(
            name="stream", about=f"{TOKENS} chunks as fast as possible, 16 streams", connections=16,
            seconds=3, fault=PLAIN, stream=True,
        ),
        Trial(
            name="paced", about=f"{TOKENS} chunks at 20 ms, 200 streams", connections=200, seconds=4,
            fault=msgspec.structs.replace(PLAIN, pace_ms=20, stamp=True), stream=True, warmup_s=1, spread_s=1,
        ),
        Trial(
            name="crowd", about=f"{TOKENS} chunks at 200 ms, 2,000 streams", connections=2_000, seconds=6,
            fault=msgspec.structs.replace(PLAIN, pace_ms=200, stamp=True), stream=True, warmup_s=2,
            spread_s=8, fresh=True, only=WHOLE,
        ),
        Trial(
            name="idle",
            about="a small request every 10 ms, beside 5,000 idle clients and a prompt of 1 MB every 50 ms",
            connections=5_000, seconds=6, fault=SHORT, large=True, generator="idle", fresh=True, only=WHOLE,
        ),
        Trial(
            name="workers", about="whole answers, 128 connections; workers share core 0", connections=128,
            seconds=4, fault=SHORT, only=WORKERS,
        ),
    )
}  # fmt: skip
