"""Asking: a stream of questions through the gateway, and the same ones at every fixed tier beside it."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import openai

from examples.servers import ANSWER, ROOT, TIERS
from examples.tiny_reasoner.task import Question, grade, held_out_set

MEASURED = ROOT / "examples" / "tiny_reasoner" / "measured"
FIXED_AT_ONCE = 12


SURGE = (0.35, 0.7, 3.0)  # from and to, as shares of the run, and times the rate


@dataclass(frozen=True, slots=True)
class Plan:
    """How questions come: `rate` a second for `seconds`; with a surge, `factor` times as many amid them."""

    rate: float
    seconds: float
    surge: bool = False

    @property
    def factor(self) -> float:
        return SURGE[2] if self.surge else 1.0

    @property
    def surge_from(self) -> float:
        return SURGE[0] * self.seconds

    @property
    def surge_to(self) -> float:
        return SURGE[1] * self.seconds

    @property
    def count(self) -> int:
        """Questions to be expected."""
        return round(self.rate * (self.seconds + (self.surge_to - self.surge_from) * (self.factor - 1)))

    def rate_at(self, at: float) -> float:
        """Questions a second, `at` seconds from the start."""
        return self.rate * (self.factor if self.surge_from <= at < self.surge_to else 1.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, graded; only adaptive ones have a reason and a decision, by its id."""

    tier: str
    text: str
    right: bool
    tokens: int
    reason: str = ""
    decision: str = ""


@dataclass(slots=True)
class Asked:
    """A question asked `at` seconds from the start; `adaptive` is None when it was refused."""

    question: Question
    at: float = 0.0
    adaptive: Answer | None = None
    refused: str | None = None
    fixed: dict[str, Answer] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return self.adaptive is not None and len(self.fixed) == len(TIERS)


def fresh_questions(count: int, seed: int) -> list[Question]:
    """Held-out questions that are not in the shipped outcome tables either, from which the head learned."""
    known = known_prompts()
    drawn = held_out_set(2 * count + 500, seed)
    fresh = [question for question in drawn if question.text not in known][:count]
    if len(fresh) < count:
        raise ValueError(f"only {len(fresh)} of {count} questions are new")
    return fresh


def known_prompts() -> set[str]:
    """The questions of every outcome table that is shipped."""
    tables = [gzip.decompress(path.read_bytes()) for path in MEASURED.glob("*.jsonl.gz")]
    return {json.loads(line)["prompt"] for table in tables for line in table.splitlines()}


def arrivals(plan: Plan, seed: int) -> Iterator[float]:
    """Seconds from the start at which questions come: a Poisson process of the plan's rate."""
    rng, now = random.Random(seed), 0.0
    for _ in range(plan.count):
        now += rng.expovariate(plan.rate_at(now))
        yield now


def fixed_fields(tier: str) -> dict[str, Any]:
    """What makes the model think at a tier, as the gateway would write it."""
    thinking = TIERS[tier]
    template = {"chat_template_kwargs": {"enable_thinking": bool(thinking)}}
    budget = {"thinking_token_budget": thinking} if thinking else {}
    return {"max_completion_tokens": thinking + ANSWER, "extra_body": template | budget}


class Traffic:
    """Asks through the gateway as questions arrive; a few at a time, asks the model itself at each tier."""

    def __init__(self, gateway: str, backend: str, tell: Callable[[Asked], object]) -> None:
        self._gateway = openai.AsyncOpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0)
        self._backend = openai.AsyncOpenAI(base_url=f"{backend}/v1", api_key="none", max_retries=0)
        self._tell = tell
        self._slots = asyncio.Semaphore(FIXED_AT_ONCE)
        self.asked: list[Asked] = []

    async def run(self, questions: list[Question], times: Iterator[float], stop: float) -> None:
        """Ask all; fixed tiers that are not answered `stop` seconds after the start are given up."""
        begun = time.monotonic()
        tasks: list[asyncio.Task[None]] = []
        try:
            for question, at in zip(questions, times, strict=True):
                await asyncio.sleep(begun + at - time.monotonic())
                entry = Asked(question, at)
                self.asked.append(entry)
                tasks.append(asyncio.create_task(self._adaptive(entry)))
                tasks += [asyncio.create_task(self._fixed(entry, tier)) for tier in TIERS]
            await asyncio.wait(tasks, timeout=max(begun + stop - time.monotonic(), 1))
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def _adaptive(self, entry: Asked) -> None:
        try:
            raw = await self._gateway.chat.completions.with_raw_response.create(
                model="tiny", messages=[{"role": "user", "content": entry.question.text}], temperature=0
            )
        except openai.APIStatusError as error:
            entry.refused = str(error.code)
        else:
            told = (raw.headers[f"x-thinkmeter-{name}"] for name in ("tier", "reason", "decision-id"))
            entry.adaptive = _graded(raw.parse(), entry.question, *told)
        self._tell(entry)

    async def _fixed(self, entry: Asked, tier: str) -> None:
        async with self._slots:
            completion = await self._backend.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": entry.question.text}],
                temperature=0,
                **fixed_fields(tier),
            )
        entry.fixed[tier] = _graded(completion, entry.question, tier)

    async def close(self) -> None:
        await self._gateway.close()
        await self._backend.close()


def _graded(completion: Any, question: Question, tier: str, reason: str = "", decision: str = "") -> Answer:
    text = (completion.choices[0].message.content or "").strip()
    tokens = completion.usage.completion_tokens
    return Answer(tier, text, grade(text, question.answer), tokens, reason, decision)


def watch(gateway: str, take: Callable[[str, Any], object]) -> None:
    """Hand over the events of the console's stream by name, from a thread of its own, while there are any."""

    def read() -> None:
        with suppress(OSError), urllib.request.urlopen(f"{gateway}/console/events") as lines:  # noqa: S310
            name = ""
            for raw in lines:
                line = raw.decode().rstrip()
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    take(name, json.loads(line.removeprefix("data: ")))

    threading.Thread(target=read, name="console-stream", daemon=True).start()
