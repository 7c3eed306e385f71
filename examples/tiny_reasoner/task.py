"""Questions in plain text with exact answers; their difficulty varies in ways that the text does not show."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from examples.tiny_reasoner import families
from examples.tiny_reasoner.families import Draft
from examples.tiny_reasoner.programs import Program, result

LEVELS = {"easy": 0.25, "medium": 0.31, "hard": 0.35, "beyond": 0.09}
STEPS = {"easy": (1, 1), "medium": (2, 4), "hard": (5, 12), "beyond": (24, 80)}
HELD_OUT_SHARE = 16
FILLED_SHARE = 0.5
FILLERS = (
    "It is a quiet morning.",
    "The sky is clear today.",
    "A cat sleeps on the chair.",
    "The train leaves at 9.",
    "There are 3 windows in the room.",
    "Please read with care.",
    "Take all the time you need.",
    "This one comes from an old book.",
    "Room 12 is next to the stairs.",
    "The teacher wrote it on the board.",
    "Tea costs 2 coins here.",
    "Nobody else is in the library.",
    "The paper is 40 years old.",
    "Outside it starts to rain.",
    "A friend asked me this.",
    "The clock on the wall is slow.",
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its exact answer, and the true number of elementary steps."""

    text: str
    answer: str
    family: str
    level: str
    difficulty: int
    program: Program


def make_question(rng: random.Random, level: str | None = None, most_steps: int | None = None) -> Question:
    """Draw one question; `most_steps` limits the steps of easy, medium and hard questions."""
    if level is None:
        level = rng.choices(list(LEVELS), list(LEVELS.values()))[0]
    low, high = STEPS[level]
    if most_steps is not None and level != "beyond":
        high = max(1, min(high, most_steps))
        low = min(low, high)
    draft = _draft(rng, level, rng.randint(low, high))
    return Question(
        text=_with_filler(rng, draft),
        answer=str(result(draft.program)),
        family=draft.family,
        level=level,
        difficulty=draft.difficulty,
        program=draft.program,
    )


def _draft(rng: random.Random, level: str, steps: int) -> Draft:
    if level == "beyond":
        return rng.choice((families.long_product, families.iterated))(rng, steps)
    makers = families.EASY if steps == 1 else families.CHAINS
    while True:
        draft = rng.choice(makers)(rng, steps)
        if draft is not None:
            return draft


def _with_filler(rng: random.Random, draft: Draft) -> str:
    """Pad the text towards a length that is independent of the difficulty."""
    parts = list(draft.sentences)
    if rng.random() < FILLED_SHARE:
        target = rng.randint(60, 220)
        fillers = rng.sample(FILLERS, 5)
        while fillers and sum(map(len, parts)) < target:
            parts.insert(rng.randrange(len(parts)) if draft.loose else 0, fillers.pop())
    return " ".join(parts)


def held_out(text: str) -> bool:
    """Whether a question is kept out of training, which depends only on its text."""
    return zlib.crc32(text.encode()) % HELD_OUT_SHARE == 0


def questions(seed: int, *, for_training: bool, most_steps: int | None = None) -> Iterator[Question]:
    """An endless, seeded stream; the training stream and the held-out stream never share a text."""
    rng = random.Random(seed)
    while True:
        question = make_question(rng, most_steps=most_steps)
        if held_out(question.text) != for_training:
            yield question


def held_out_set(count: int, seed: int = 20_000) -> list[Question]:
    """`count` different held-out questions."""
    found: dict[str, Question] = {}
    for question in questions(seed, for_training=False):
        found.setdefault(question.text, question)
        if len(found) == count:
            break
    return list(found.values())


def read_number(content: str) -> str | None:
    """The number that an answer consists of, or None if it is not just a number."""
    match = re.fullmatch(r"\s*(-?\d+)\.?\s*", content)
    return match.group(1) if match else None


def grade(content: str, answer: str) -> bool:
    """Whether the visible answer is exactly the right number."""
    return read_number(content) == answer
