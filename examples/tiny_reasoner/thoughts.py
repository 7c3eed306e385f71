"""Generates the thoughts to train on: short steps, a check, and a third pass if the two differ."""

from __future__ import annotations

import random
from dataclasses import dataclass

from examples.tiny_reasoner.programs import Trace, faulty, run
from examples.tiny_reasoner.task import Question

CHECK, AGREED, AGAIN = "check\n", "ok\n", "again\n"
BACK = ">"
FIRST_PASS_FAULTS, CHECK_FAULTS = 0.15, 0.05


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a thought; the model sees but is not trained on pieces that are not `taught`."""

    text: str
    taught: bool = True


def _pass(trace: Trace, wrong: int | None) -> list[Piece]:
    return [Piece(text + "\n", index != wrong) for index, (text, _) in enumerate(trace)]


def _maybe_faulty(question: Question, rng: random.Random, share: float) -> tuple[Trace, int | None]:
    if rng.random() < share:
        drawn = faulty(question.program, rng)
        if drawn is not None:
            return drawn
    return run(question.program), None


def _way_back(question: Question) -> list[Piece]:
    """If steps have names: the names from the one that is asked for back to the first."""
    names = [step.label.removesuffix(":") for step in reversed(question.program)]
    return [Piece(f"{BACK} {' '.join(names)}\n")] if all(names) else []


def long_thought(question: Question, rng: random.Random) -> list[Piece]:
    """The way back through named steps, a first pass, a check, and a third pass where the two differ."""
    first, first_wrong = _maybe_faulty(question, rng, FIRST_PASS_FAULTS)
    second, second_wrong = _maybe_faulty(question, rng, CHECK_FAULTS if first_wrong is None else 0.0)
    pieces = [*_way_back(question), *_pass(first, first_wrong), Piece(CHECK), *_pass(second, second_wrong)]
    if first[-1][1] == second[-1][1]:
        return [*pieces, Piece(AGREED)]
    return [*pieces, Piece(AGAIN), *_pass(run(question.program), None)]
