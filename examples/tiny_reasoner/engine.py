"""Generates with CTranslate2: batches, thinking budgets, seeds, and delivery of tokens.

CTranslate2 runs a batch to its end, with one set of sampling options and one stream of random numbers.
Sequences with the same options therefore share batches, and a sequence with a seed runs alone in its own
generator. A thought that has spent its budget leaves its batch, gets `</think>` appended, and its answer is
generated in a later batch.
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
WORKERS = 3  # one per core of two, and one for requests that arrive while both run long batches
ROUND = 256  # tokens after which a batch is formed anew
COOLEST = 0.01  # logits divided by a smaller number overflow float32
NARROWEST = 1e-30  # a smaller number is zero in float32
UNSEEDED = 2**32 - 1  # with this seed CTranslate2 takes a random one from the system
_seeding = threading.Lock()  # the seed belongs to the process


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling options of one sequence."""

    max_tokens: int
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    thinking_budget: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Options of `Generator.generate_batch` for a whole batch."""
        if self.greedy:
            return {"sampling_topk": 1}
        return {
            "sampling_topk": self.top_k,
            "sampling_topp": max(self.top_p, NARROWEST),
            "sampling_temperature": max(self.temperature, COOLEST),
        }

    @property
    def greedy(self) -> bool:
        """Whether decoding is greedy."""
        return self.temperature == 0 or self.top_k == 1

    @property
    def alone(self) -> bool:
        """Whether other sequences in the batch would change the numbers drawn from the seed."""
        return self.seed is not None and not self.greedy


@dataclass(eq=False, slots=True)
class Sequence:
    """A prompt being continued. `deliver` gets every token and, with the last one, the finish reason."""

    prompt: list[int]
    sampling: Sampling
    deliver: Callable[[int, Finish | None], None]
    fail: Callable[[Exception], None]
    tokens: list[int] = field(default_factory=list)
    cancelled: bool = False
    thought: int | None = None  # tokens of the thought so far

    @property
    def position(self) -> int:
        return len(self.prompt) + len(self.tokens)

    @property
    def spent(self) -> bool:
        """Whether the thought must end here."""
        budget = self.sampling.thinking_budget
        return budget is not None and self.thought is not None and self.thought >= budget

    def goes_with(self, other: Sequence) -> bool:
        """Whether both can share a batch; it reads prompts beyond the shortest's length token by token."""
        near = self.position // ROUND == other.position // ROUND
        alone = self.sampling.alone or other.sampling.alone
        return near and not alone and self.sampling.options == other.sampling.options


class Engine:
    """A few threads, each of which forms a batch of waiting sequences and runs it."""

    def __init__(self, directory: Path, slots: int = 32) -> None:
        self.tokenizer = Tokens(directory / "tokenizer.json")
        self.slots = slots
        self.end, self.think, self.unthink = map(self.tokenizer.special, (END, THINK, UNTHINK))
        config = json.loads((directory / "config.json").read_text("utf-8"))
        self.longest: int = config["max_position_embeddings"]
        self._names = self.tokenizer.vocabulary
        self._files = convert(directory, self._names)
        self._changed = threading.Condition()  # guards the fields below
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
        """Stop after the running step, without finishing the running sequences."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence. Its `deliver` gets the tokens, from another thread."""
        with self._changed:
            self._waiting.append(sequence)
            self._changed.notify()

    @property
    def load(self) -> tuple[int, int]:
        """Running and waiting sequences."""
        with self._changed:
            return len(self._running), len(self._waiting)

    def _generator(self, seed: int = UNSEEDED) -> ctranslate2.Generator:
        """A generator with this seed, which its one thread takes when it draws its first number."""
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
        """The first waiting sequence and those that fit it, shared among idle threads; none when closed."""
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
        """Take a token, and end a thought that has spent its budget; returns whether it leaves its batch."""
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
            return True  # its thread continues it
        with self._changed:
            self._running.discard(sequence)
            if not dropped:
                # an answer goes first, because a reader waits for it; a long thought goes last
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
