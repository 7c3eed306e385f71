"""Sends questions through the gateway, and the same questions to the model at every fixed tier."""

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


SURGE = (0.35, 0.7, 3.0)  # start and end as shares of the run, and factor of the rate


@dataclass(frozen=True, slots=True)
class Plan:
    """Arrival of questions: `rate` per second for `seconds`, times `factor` during a surge."""

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
        """Expected number of questions."""
        return round(self.rate * (self.seconds + (self.surge_to - self.surge_from) * (self.factor - 1)))

    def rate_at(self, at: float) -> float:
        """Questions per second, `at` seconds after the start."""
        return self.rate * (self.factor if self.surge_from <= at < self.surge_to else 1.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """One graded answer; only adaptive answers have a reason and a decision ID."""

    tier: str
    text: str
    right: bool
    tokens: int
    reason: str = ""
    decision: str = ""


@dataclass(slots=True)
class Asked:
    """A question asked `at` seconds after the start; `adaptive` is None if it was refused."""

    question: Question
    at: float = 0.0
    adaptive: Answer | None = None
    refused: str | None = None
    fixed: dict[str, Answer] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return self.adaptive is not None and len(self.fixed) == len(TIERS)


def fresh_questions(count: int, seed: int) -> list[Question]:
    """Held-out questions that are not in the shipped outcome tables, which the head was trained on."""
    known = known_prompts()
    drawn = held_out_set(2 * count + 500, seed)
    fresh = [question for question in drawn if question.text not in known][:count]
    if len(fresh) < count:
        raise ValueError(f"only {len(fresh)} of {count} questions are new")
    return fresh


def known_prompts() -> set[str]:
    """The questions of all shipped outcome tables."""
    tables = [gzip.decompress(path.read_bytes()) for path in MEASURED.glob("*.jsonl.gz")]
    return {json.loads(line)["prompt"] for table in tables for line in table.splitlines()}


def arrivals(plan: Plan, seed: int) -> Iterator[float]:
    """Arrival times in seconds after the start: a Poisson process with the plan's rate."""
    rng, now = random.Random(seed), 0.0
    for _ in range(plan.count):
        now += rng.expovariate(plan.rate_at(now))
        yield now


def fixed_fields(tier: str) -> dict[str, Any]:
    """Request fields for a tier, as the gateway would set them."""
    thinking = TIERS[tier]
    template = {"chat_template_kwargs": {"enable_thinking": bool(thinking)}}
    budget = {"thinking_token_budget": thinking} if thinking else {}
    return {"max_completion_tokens": thinking + ANSWER, "extra_body": template | budget}


class Traffic:
    """Asks through the gateway as questions arrive, and the model itself, a few at a time, at each tier."""

    def __init__(self, gateway: str, backend: str, tell: Callable[[Asked], object]) -> None:
        self._gateway = openai.AsyncOpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0)
        self._backend = openai.AsyncOpenAI(base_url=f"{backend}/v1", api_key="none", max_retries=0)
        self._tell = tell
        self._slots = asyncio.Semaphore(FIXED_AT_ONCE)
        self.asked: list[Asked] = []

    async def run(self, questions: list[Question], times: Iterator[float], stop: float) -> None:
        """Ask all questions; drop fixed tiers without an answer `stop` seconds after the start."""
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
    """Pass on the events of the console's stream by name, from a separate thread, until the stream ends."""

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
