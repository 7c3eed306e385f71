"""Continuous batching over the numpy model: sampling, forced ends of thought, and delivery of tokens."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from examples.tiny_reasoner.chat import END, THINK, UNTHINK
from examples.tiny_reasoner.forward import Floats, Qwen3
from examples.tiny_reasoner.tokens import Tokens

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one sequence is continued."""

    max_tokens: int
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    thinking_budget: int | None = None


@dataclass(eq=False, slots=True)
class Sequence:
    """A prompt on its way; `deliver` gets every token and, with the last one, why it ended."""

    prompt: list[int]
    sampling: Sampling
    deliver: Callable[[int, Finish | None], None]
    fail: Callable[[Exception], None]
    tokens: list[int] = field(default_factory=list)
    cancelled: bool = False
    random: np.random.Generator = field(init=False)
    thought: int | None = None  # tokens of thought so far while thinking
    first: Floats = field(init=False)  # logits after the prompt

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.sampling.seed)

    @property
    def position(self) -> int:
        return len(self.prompt) + len(self.tokens)


class Engine:
    """One thread that steps all running sequences together."""

    def __init__(self, directory: Path, slots: int = 32) -> None:
        self.tokenizer = Tokens(directory / "tokenizer.json")
        self.model = Qwen3(directory, slots)
        self.slots = slots
        self.end, self.think, self.unthink = map(self.tokenizer.special, (END, THINK, UNTHINK))
        self.words = len(self.tokenizer)
        self._waiting: queue.SimpleQueue[Sequence | None] = queue.SimpleQueue()
        self._running: list[Sequence] = []
        self._thread = threading.Thread(target=self._work, name="tiny-reasoner", daemon=True)

    def start(self) -> None:
        """Start the worker thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the running step; sequences under way are not finished."""
        self._waiting.put(None)
        self._thread.join()

    def submit(self, sequence: Sequence) -> None:
        """Hand over a sequence; tokens come through its `deliver`, from the worker thread."""
        self._waiting.put(sequence)

    @property
    def load(self) -> tuple[int, int]:
        """Running and waiting sequences."""
        return len(self._running), self._waiting.qsize()

    def _work(self) -> None:
        while self._admit():
            try:
                self._step()
            except Exception as error:
                broken, self._running = self._running, []
                for sequence in broken:
                    sequence.fail(error)

    def _admit(self) -> bool:
        """Take in what waits, as long as there are slots; False when it is time to stop."""
        while len(self._running) < self.slots:
            if self._running and self._waiting.empty():
                return True
            sequence = self._waiting.get()
            if sequence is None:
                return False
            if sequence.cancelled:
                continue
            self._read(sequence)
            self._running.append(sequence)
            self._advance([sequence], sequence.first[None, :].copy())
        return True

    def _read(self, sequence: Sequence) -> None:
        """Put the prompt into the next slot, copied where a running sequence has read the same prompt."""
        slot = len(self._running)
        for other, twin in enumerate(self._running):
            if twin.prompt == sequence.prompt:
                self.model.move(other, slot, len(twin.prompt))
                sequence.first = twin.first
                return
        sequence.first = self.model.prefill(slot, np.array(sequence.prompt))

    def _step(self) -> None:
        """Drop what was cancelled, then one more token for every running sequence."""
        self._leave([sequence for sequence in self._running if sequence.cancelled])
        if not self._running:
            return
        running = list(self._running)
        ids = np.array([sequence.tokens[-1] for sequence in running])
        at = np.array([sequence.position - 1 for sequence in running])
        self._advance(running, self.model.decode(ids, at))

    def _advance(self, sequences: list[Sequence], logits: Floats) -> None:
        chosen = self._choose(sequences, logits)
        done: list[Sequence] = []
        for sequence, token in zip(sequences, chosen, strict=True):
            finish = self._take(sequence, int(token))
            sequence.deliver(int(token), finish)
            if finish is not None:
                done.append(sequence)
        self._leave(done)

    def _take(self, sequence: Sequence, token: int) -> Finish | None:
        sequence.tokens.append(token)
        if token == self.unthink:
            sequence.thought = None
        elif sequence.thought is not None:
            sequence.thought += 1
        elif token == self.think:
            sequence.thought = 0
        if token == self.end:
            return "stop"
        full = len(sequence.tokens) >= sequence.sampling.max_tokens
        full = full or sequence.position >= self.model.longest
        return "length" if full else None

    def _choose(self, sequences: list[Sequence], logits: Floats) -> NDArray[np.int64]:
        """The next token of each sequence: forced, the most likely, or drawn with its own generator."""
        logits[:, self.words :] = -np.inf
        chosen: NDArray[np.int64] = logits.argmax(axis=1)
        warm = [row for row, sequence in enumerate(sequences) if sequence.sampling.temperature > 0]
        if warm:
            chosen[warm] = _draw(logits[warm], [sequences[row] for row in warm])
        for row, sequence in enumerate(sequences):
            budget = sequence.sampling.thinking_budget
            if budget is not None and sequence.thought is not None and sequence.thought >= budget:
                chosen[row] = self.unthink
        return chosen

    def _leave(self, sequences: list[Sequence]) -> None:
        """Free the slots and close the gaps, so that the running ones fill the first slots."""
        for sequence in sequences:
            slot, last = self._running.index(sequence), self._running.pop()
            if last is not sequence:
                self._running[slot] = last
                self.model.move(len(self._running), slot, last.position)


def _draw(logits: Floats, sequences: list[Sequence]) -> NDArray[np.int64]:
    """One sample for each row, with one number from the row's own generator."""
    temperatures = np.array([sequence.sampling.temperature for sequence in sequences])
    scaled = logits.astype(np.float64) / temperatures[:, None]
    chances = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    for row, sequence in enumerate(sequences):
        _narrow(chances[row], sequence.sampling)
    reach = np.cumsum(chances, axis=1)
    drawn = np.array([sequence.random.random() for sequence in sequences]) * reach[:, -1]
    return np.asarray((reach <= drawn[:, None]).sum(axis=1), np.int64)


def _narrow(chances: NDArray[np.float64], sampling: Sampling) -> None:
    """Strike out what top-k and top-p leave no room for."""
    if 0 < sampling.top_k < len(chances):
        chances[chances < np.partition(chances, -sampling.top_k)[-sampling.top_k]] = 0.0
    if sampling.top_p < 1.0:
        order = np.argsort(-chances)
        before = np.cumsum(chances[order]) - chances[order]
        chances[order[before >= sampling.top_p * chances.sum()]] = 0.0
