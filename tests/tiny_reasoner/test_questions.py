"""Questions have one exact answer, and their form does not reveal how hard they are."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.tiny_reasoner.protocol import UNREADABLE
from examples.tiny_reasoner.report import rank_correlation
from examples.tiny_reasoner.task import LEVELS, STEPS, grade, held_out, held_out_set, make_question, questions
from tests.tiny_reasoner.oracle import solve

SEEDS = st.integers(0, 2**32)


@given(SEEDS)
def test_the_answer_follows_from_the_text_alone(seed: int) -> None:
    """An independent solver finds the generator's answer in the text, with or without distractions."""
    question = make_question(random.Random(seed))
    assert solve(question.text, question.family) == int(question.answer)


@given(SEEDS, st.sampled_from(sorted(LEVELS)))
def test_a_question_fits_the_model_and_its_level(seed: int, level: str) -> None:
    """Every question is printable, has an answer of one or two digits, and takes the steps of its level."""
    question = make_question(random.Random(seed), level)
    assert not UNREADABLE.search(question.text)
    assert 0 <= int(question.answer) <= 99
    low, _ = STEPS[level]
    assert question.difficulty >= low
    assert question.level == level


@given(SEEDS)
def test_a_seed_gives_the_same_question(seed: int) -> None:
    """The seed alone determines the question."""
    assert make_question(random.Random(seed)) == make_question(random.Random(seed))


@given(SEEDS, st.integers(1, 12))
def test_a_cap_on_steps_holds(seed: int, most: int) -> None:
    """With `most_steps`, only the hopeless questions take more steps. A turn on a map counts two."""
    question = make_question(random.Random(seed), most_steps=most)
    assert question.level == "beyond" or question.difficulty <= most + 1


def test_training_never_sees_a_held_out_question() -> None:
    """The questions for training and for measuring have no text in common."""
    training, measuring = questions(1, for_training=True), questions(1, for_training=False)
    assert not any(held_out(next(training).text) for _ in range(2_000))
    assert all(held_out(next(measuring).text) for _ in range(200))


def test_the_held_out_set_is_fixed_and_without_doubles() -> None:
    """Every call gives the same questions from all families, without duplicates."""
    first = held_out_set(500)
    assert first == held_out_set(500)
    assert len({question.text for question in first}) == 500
    assert {question.family for question in first} == {
        "arithmetic",
        "modular",
        "story",
        "lists",
        "compare",
        "registers",
    }


def test_length_does_not_give_difficulty_away() -> None:
    """The length of the text says little about the steps: there are long easy and short hard questions."""
    asked = held_out_set(2_000)
    rows = [{"prompt": question.text, "level": question.difficulty} for question in asked]
    assert rank_correlation(rows) < 0.5
    middle = statistics.median(len(question.text) for question in asked)
    easy = [question for question in asked if question.level == "easy"]
    hard = [question for question in asked if question.level in ("hard", "beyond")]
    assert sum(len(question.text) > middle for question in easy) > 0.2 * len(easy)
    assert sum(len(question.text) < middle for question in hard) > 0.2 * len(hard)


@pytest.mark.parametrize(
    ("content", "right"),
    [
        ("42", True),
        ("\n\n42", True),
        (" 42. ", True),
        ("042", False),
        ("42 or 43", False),
        ("4", False),
        ("the answer is 42", False),
        ("", False),
        ("-42", False),
    ],
)
def test_the_grader_takes_the_number_and_nothing_else(content: str, right: bool) -> None:
    """An answer is right if it is the number, apart from white space and a full stop."""
    assert grade(content, "42") is right
