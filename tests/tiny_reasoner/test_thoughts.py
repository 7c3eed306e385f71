"""The thoughts for training: they end right, and mistakes planted in them are corrected."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from examples.tiny_reasoner.programs import faulty, result, run
from examples.tiny_reasoner.task import make_question
from examples.tiny_reasoner.thoughts import AGAIN, AGREED, BACK, CHECK, long_thought

SEEDS = st.integers(0, 2**32)


@given(SEEDS)
def test_a_thought_ends_at_the_answer(seed: int) -> None:
    """The last pass ends with the right answer, whatever mistakes came before."""
    rng = random.Random(seed)
    question = make_question(rng)
    text = "".join(piece.text for piece in long_thought(question, rng)).removesuffix(AGREED)
    right = "".join(line + "\n" for line, _ in run(question.program))
    if AGAIN in text:
        assert text.split(AGAIN)[1] == right
    else:
        assert result_of(text.split(CHECK)[1]) == question.answer


def result_of(passed: str) -> str:
    """The last number of a pass."""
    last = passed.strip().split("\n")[-1]
    digits = ""
    while last and last[-1].isdigit():
        digits, last = last[-1] + digits, last[:-1]
    return digits


@given(SEEDS)
def test_a_check_agrees_only_where_the_ends_agree(seed: int) -> None:
    """If two passes end alike, `ok` follows; if not, a third pass follows."""
    rng = random.Random(seed)
    question = make_question(rng)
    text = "".join(piece.text for piece in long_thought(question, rng))
    first, rest = text.split(CHECK)
    second = rest.split(AGAIN)[0].removesuffix(AGREED)
    assert (result_of(first) == result_of(second)) is (AGAIN not in text)


@given(SEEDS)
def test_the_planted_mistake_is_not_taught(seed: int) -> None:
    """A faulty trace differs from the right one, first at the step that is named."""
    rng = random.Random(seed)
    program = make_question(rng, "hard").program
    drawn = faulty(program, rng)
    if drawn is None:
        return
    trace, at = drawn
    right = run(program)
    assert trace[:at] == right[:at]
    assert trace[at][1] != right[at][1]


@given(SEEDS)
def test_a_faultless_run_gives_the_answer(seed: int) -> None:
    """The last value of a run is the question's answer."""
    question = make_question(random.Random(seed))
    assert str(result(question.program)) == question.answer


@given(SEEDS)
def test_definitions_are_traced_back_first(seed: int) -> None:
    """A thought about definitions begins with the names it needs, starting with the one in the question."""
    rng = random.Random(seed)
    question = make_question(rng)
    text = "".join(piece.text for piece in long_thought(question, rng))
    if question.family != "registers":
        assert BACK + " " not in text
        return
    mark, asked, *names = text.split("\n")[0].split()
    assert mark == BACK
    assert f"What is {asked}?" in question.text
    assert [step.label for step in question.program] == [f"{name}:" for name in reversed([asked, *names])]
