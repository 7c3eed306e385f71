"""A thought that is sampled once and cut at many budgets gives what the engine gives at each of them."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from examples.tiny_reasoner.chat import render
from examples.tiny_reasoner.cuts import (
    ANSWER_ROOM,
    Model,
    Sample,
    direct_samples,
    ended_at,
    thinking_samples,
)
from examples.tiny_reasoner.engine import Engine, Finish, Sampling, Sequence
from examples.tiny_reasoner.serve import WEIGHTS
from examples.tiny_reasoner.task import Question, grade, held_out_set

OPEN, CLOSE = 1, 2
BUDGETS = (0, 6, 24, 320)
thoughts = st.builds(
    lambda inside, closed: (OPEN, *inside, *([CLOSE] if closed else [])),
    st.lists(st.integers(3, 9), max_size=40),
    st.booleans(),
)


@given(thoughts, st.integers(0, 60))
def test_a_budget_ends_a_thought_and_changes_nothing_before(thought: tuple[int, ...], budget: int) -> None:
    """At most `budget` tokens between the marks, all of the thought if it ended before, and then its end."""
    ended = ended_at(budget, thought, CLOSE)
    inside = ended[1:].index(CLOSE) if CLOSE in ended else len(ended) - 1

    assert ended[: inside + 1] == thought[: inside + 1]
    assert inside <= budget
    assert ended[-1] == CLOSE or ended == thought
    if CLOSE in thought and thought.index(CLOSE) - 1 <= budget:
        assert ended == thought


@given(thoughts, st.integers(0, 60), st.integers(0, 60))
def test_the_smaller_of_two_budgets_decides(thought: tuple[int, ...], one: int, other: int) -> None:
    """Cutting what is already cut is cutting at the smaller budget."""
    twice = ended_at(one, ended_at(other, thought, CLOSE), CLOSE)

    assert twice == ended_at(min(one, other), thought, CLOSE)


class Asked:
    """The greedy completion of a question at a thinking budget, as a client of the engine gets it."""

    def __init__(self, engine: Engine, question: Question, budget: int) -> None:
        self.engine, self.question = engine, question
        self._done = threading.Event()
        prompt = engine.tokenizer.encode(render(question.text, thinking=budget > 0))
        sampling = Sampling(budget + ANSWER_ROOM, temperature=0, thinking_budget=budget)
        self._sequence = Sequence(prompt, sampling, self._deliver, lambda error: self._done.set())
        engine.submit(self._sequence)

    def _deliver(self, token: int, finish: Finish | None) -> None:
        if finish is not None:
            self._done.set()

    def sample(self) -> Sample:
        """Its outcome."""
        assert self._done.wait(60)
        tokens, unthink = self._sequence.tokens, self.engine.unthink
        visible = tokens[tokens.index(unthink) + 1 :] if unthink in tokens else tokens
        return Sample(grade(self.engine.tokenizer.decode(visible), self.question.answer), len(tokens))


def test_agrees_with_the_engine(engine: Engine) -> None:
    """Greedy outcomes are those of greedy decoding in the engine, at every budget."""
    asked = held_out_set(8)
    model = Model(WEIGHTS, temperature=0, seed=1)
    found = {0: direct_samples(model, asked, 1)} | thinking_samples(model, asked, BUDGETS[1:], 1)

    by_engine = {budget: [Asked(engine, question, budget) for question in asked] for budget in BUDGETS}

    for budget, each in by_engine.items():
        assert [[one.sample()] for one in each] == found[budget]


def test_budgets_share_what_a_thought_says() -> None:
    """Two samples of each question; beyond the end of a thought its outcome stays the same."""
    asked = held_out_set(6)
    done: list[tuple[int, int]] = []
    model = Model(WEIGHTS, 0.7, 1, lambda count, total: done.append((count, total)))
    found = thinking_samples(model, asked, (24, 320, 321), 2)

    assert [len(samples) for samples in found[24]] == [2] * 6
    assert done[-1][0] == done[-1][1]
    for short, long, longer in zip(found[24], found[320], found[321], strict=True):
        for one, other, third in zip(short, long, longer, strict=True):
            assert one.tokens <= other.tokens + ANSWER_ROOM
            if other.tokens < 320:
                assert other == third


def test_the_same_seed_gives_the_same_samples() -> None:
    """A table can be measured again."""
    asked = held_out_set(8)
    one, other = (thinking_samples(Model(WEIGHTS, 0.7, 5), asked, (24, 320), 1) for _ in range(2))

    assert one == other
