"""Generation with CTranslate2: batches, forced ends of thought, seeds, and delivery of tokens.

CTranslate2 runs a batch to its end, with one set of sampling options and one stream of random numbers. So
sequences that ask for the same options share batches, and one with a seed runs alone in a generator of its
own. A thought that has spent its budget leaves its batch; `</think>` is put after it, and the answer is
written in a next batch.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import ctranslate2

from examples.tiny_reasoner.chat import END, THINK, UNTHINK
from examples.tiny_reasoner.convert import convert
from examples.tiny_reasoner.tokens import Tokens

Finish = Literal["stop", "length"]
WORKERS = 3  # two cores' worth, and one for what comes while both are at long batches
ROUND = 256  # tokens after which a batch is made up anew
COOLEST = 0.01  # logits divided by less do not fit float32
NARROWEST = 1e-30  # less is zero in float32
UNSEEDED = 2**32 - 1  # with this seed CTranslate2 asks the system for one
_seeding = threading.Lock()  # the seed is the process's


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one sequence is continued."""

    max_tokens: int
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    thinking_budget: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What `Generator.generate_batch` takes for a whole batch."""
        if self.greedy:
            return {"sampling_topk": 1}
        return {
            "sampling_topk": self.top_k,
            "sampling_topp": max(self.top_p, NARROWEST),
            "sampling_temperature": max(self.temperature, COOLEST),
        }

    @property
    def greedy(self) -> bool:
        """Whether nothing is left to chance."""
        return self.temperature == 0 or self.top_k == 1

    @property
    def alone(self) -> bool:
        """Whether neighbours would change the numbers that a seed gives."""
        return self.seed is not None and not self.greedy


@dataclass(eq=False, slots=True)
class Sequence:
    """A prompt on its way; `deliver` gets every token and, with the last one, why it ended."""

    prompt: list[int]
    sampling: Sampling
    deliver: Callable[[int, Finish | None], None]
    fail: Callable[[Exception], None]
    tokens: list[int] = field(default_factory=list)
    cancelled: bool = False
    thought: int | None = None  # tokens of thought so far while thinking

    @property
    def position(self) -> int:
        return len(self.prompt) + len(self.tokens)

    @property
    def spent(self) -> bool:
        """Whether the thought must end here."""
        budget = self.sampling.thinking_budget
        return budget is not None and self.thought is not None and self.thought >= budget

    def goes_with(self, other: Sequence) -> bool:
        """Whether both can share a batch; what is longer than the shortest is read token by token there."""
        near = self.position // ROUND == other.position // ROUND
        alone = self.sampling.alone or other.sampling.alone
        return near and not alone and self.sampling.options == other.sampling.options


class Engine:
    """A few threads, each of which makes up a batch of what waits and runs it."""

    def __init__(self, directory: Path, slots: int = 32) -> None:
        self.tokenizer = Tokens(directory / "tokenizer.json")
        self.slots = slots
        self.end, self.think, self.unthink = map(self.tokenizer.special, (END, THINK, UNTHINK))
        config = json.loads((directory / "config.json").read_text("utf-8"))
        self.longest: int = config["max_position_embeddings"]
        self._names = self.tokenizer.vocabulary
        self._files = convert(directory, self._names)
        self._changed = threading.Condition()  # guards what follows
        self._waiting: deque[Sequence] = deque()
        self._running: set[Sequence] = set()
        self._idle = 0
        self._closed = False
        names = (f"tiny-reasoner-{number}" for number in range(WORKERS))
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop after the running step; sequences under way are not finished."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def submit(self, sequence: Sequence) -> None:
        """Hand over a sequence; tokens come through its `deliver`, from another thread."""
        with self._changed:
            self._waiting.append(sequence)
            self._changed.notify()

    @property
    def load(self) -> tuple[int, int]:
        """Running and waiting sequences."""
        with self._changed:
            return len(self._running), len(self._waiting)

    def _generator(self, seed: int = UNSEEDED) -> ctranslate2.Generator:
        """A generator that draws from a seed: its one thread takes it with the first number it draws."""
        generator = ctranslate2.Generator(
            "tiny", files=self._files, compute_type="float32", inter_threads=1, intra_threads=1
        )
        with _seeding:
            ctranslate2.set_random_seed(seed)
            generator.generate_batch([[END]], max_length=1, sampling_topk=0)
            ctranslate2.set_random_seed(UNSEEDED)
        return generator

    def _work(self) -> None:
        shared = self._generator()
        while batch := self._next_batch():
            try:
                self._run(batch, shared)
            except Exception as error:
                with self._changed:
                    broken = self._running.intersection(batch)
                    self._running -= broken
                for sequence in broken:
                    sequence.fail(error)

    def _next_batch(self) -> list[Sequence]:
        """The first that waits and what goes with it, shared out among idle threads; none when closed."""
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._closed or self._first() is not None)
            first = self._first()
            if self._closed or first is None:
                return []
            fitting = (one for one in self._waiting if one is first or first.goes_with(one))
            found = list(islice(fitting, self.slots))
            batch = found[: -(-len(found) // self._idle)]
            for sequence in batch:
                self._waiting.remove(sequence)
            self._running.update(batch)
            self._idle -= 1
            if self._waiting:
                self._changed.notify()
            return batch

    def _first(self) -> Sequence | None:
        while self._waiting and self._waiting[0].cancelled:
            self._waiting.popleft()
        return self._waiting[0] if self._waiting else None

    def _run(self, batch: list[Sequence], shared: ctranslate2.Generator) -> None:
        first = batch[0]
        if first.sampling.seed is None or not first.sampling.alone:
            self._generate(batch, shared)
            return
        own = self._generator(first.sampling.seed % UNSEEDED)
        while first in self._running:
            self._generate(batch, own)

    def _generate(self, batch: list[Sequence], generator: ctranslate2.Generator) -> None:
        def step(result: ctranslate2.GenerationStepResult) -> bool:
            return self._advance(batch[result.batch_id], result.token_id, last=result.is_last)

        generator.generate_batch(
            [[self._names[token] for token in one.prompt + one.tokens] for one in batch],
            max_length=min(ROUND, max(one.sampling.max_tokens - len(one.tokens) for one in batch)),
            include_prompt_in_result=False,
            callback=step,
            **batch[0].sampling.options,
        )

    def _advance(self, sequence: Sequence, token: int, *, last: bool) -> bool:
        """Take a token, and the end of a thought that has spent its budget; whether it leaves its batch."""
        finish = self._take(sequence, token)
        forced = finish is None and sequence.spent
        if forced:
            finish = self._take(sequence, self.unthink)
        if finish is not None:
            return True
        dropped = sequence.cancelled or self._closed
        if not (dropped or forced or last):
            return False
        if sequence.sampling.alone and not dropped:
            return True  # its thread goes on with it
        with self._changed:
            self._running.discard(sequence)
            if not dropped:
                # A reader waits for the answer; the next of a long thought can wait for those not yet begun.
                (self._waiting.appendleft if forced else self._waiting.append)(sequence)
                self._changed.notify()
        return True

    def _take(self, sequence: Sequence, token: int) -> Finish | None:
        sequence.tokens.append(token)
        if token == self.unthink:
            sequence.thought = None
        elif sequence.thought is not None:
            sequence.thought += 1
        elif token == self.think:
            sequence.thought = 0
        full = len(sequence.tokens) >= sequence.sampling.max_tokens or sequence.position >= self.longest
        finish: Finish | None = "stop" if token == self.end else "length" if full else None
        if finish is not None:
            with self._changed:
                self._running.discard(sequence)
        sequence.deliver(token, finish)
        return finish
