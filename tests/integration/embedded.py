"""Asks the embedded engine of the tiny reasoner the same questions as vLLM."""

import threading
from collections.abc import Sequence as Ordered
from dataclasses import dataclass

from examples.tiny_reasoner.chat import render
from examples.tiny_reasoner.cuts import ANSWER_ROOM
from examples.tiny_reasoner.engine import Engine, Finish, Sampling, Sequence
from examples.tiny_reasoner.serve import WEIGHTS
from examples.tiny_reasoner.tokens import Tokens


@dataclass(frozen=True)
class Said:
    """One completion: its thought and its answer, and the tokens of the thought and of both."""

    reasoning: str
    content: str
    thought: int
    tokens: int


_tokenizer = Tokens(WEIGHTS / "tokenizer.json")


def tokens_of(text: str | None) -> int:
    """The number of tokens of a text. Old releases of vLLM do not count those of a thought."""
    return len(_tokenizer.encode(text or ""))


def greedy(engine: Engine, questions: Ordered[str], budget: int) -> list[Said]:
    """The greedy completion of each question under a thinking budget; 0 switches thinking off."""
    sequences: list[Sequence] = []
    left, done = len(questions), threading.Event()
    failures: list[Exception] = []

    def deliver(_: int, finish: Finish | None) -> None:
        nonlocal left
        left -= finish is not None
        if left == 0:
            done.set()

    def fail(error: Exception) -> None:
        failures.append(error)
        done.set()

    for question in questions:
        prompt = engine.tokenizer.encode(render(question, thinking=budget > 0))
        sampling = Sampling(budget + ANSWER_ROOM, temperature=0, thinking_budget=budget)
        sequences.append(Sequence(prompt, sampling, deliver, fail))
    for sequence in sequences:
        engine.submit(sequence)
    assert done.wait(300), "the embedded engine hangs"
    if failures:
        raise failures[0]
    return [_said(engine, sequence.tokens) for sequence in sequences]


def _said(engine: Engine, tokens: list[int]) -> Said:
    thought: list[int] = []
    answer = tokens
    if tokens[0] == engine.think:
        cut = tokens.index(engine.unthink) if engine.unthink in tokens else len(tokens)
        thought, answer = tokens[1:cut], tokens[cut + 1 :]
    decode = engine.tokenizer.decode
    return Said(decode(thought), decode(answer), len(thought), len(tokens))
