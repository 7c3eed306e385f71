"""The engine: budgets and limits hold, seeds repeat, and other sequences make no difference."""

from __future__ import annotations

import queue

import numpy as np
import pytest

from examples.tiny_reasoner import engine as module
from examples.tiny_reasoner.chat import render
from examples.tiny_reasoner.engine import Engine, Finish, Sampling, Sequence
from examples.tiny_reasoner.serve import WEIGHTS

HARD = "Let f(x) = (3x + 4) mod 17. Apply f 9 times to 5."


class Asked:
    """A sequence whose end can be waited for."""

    def __init__(
        self, engine: Engine, sampling: Sampling, question: str = HARD, thinking: bool = True
    ) -> None:
        self._ended: queue.SimpleQueue[Finish | Exception] = queue.SimpleQueue()
        prompt = engine.tokenizer.encode(render(question, thinking=thinking))
        self.sequence = Sequence(prompt, sampling, self._deliver, self._ended.put)
        engine.submit(self.sequence)

    def _deliver(self, token: int, finish: Finish | None) -> None:
        if finish is not None:
            self._ended.put(finish)

    def end(self) -> Finish:
        """Why it ended."""
        ended = self._ended.get(timeout=60)
        if isinstance(ended, Exception):
            raise ended
        return ended


def test_transformers_agrees(engine: Engine) -> None:
    """The transformers library computes the same logits from the same directory."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32)
    ids = np.random.default_rng(1).integers(0, 600, 80)
    names = engine.tokenizer.vocabulary
    ours = np.array(engine._generator().forward_batch([[names[index] for index in ids]]))[0, -1]
    logits = theirs(torch.tensor(ids)[None]).logits[0, -1].detach().numpy()
    assert np.abs(ours - logits[: len(names)]).max() < 1e-3


@pytest.mark.parametrize("budget", [0, 1, 7, 30])
def test_a_budget_ends_the_thought(engine: Engine, budget: int) -> None:
    """When its budget is spent, the thought is ended by force and an answer follows."""
    asked = Asked(engine, Sampling(budget + 16, 0.0, thinking_budget=budget))
    assert asked.end() == "stop"
    tokens = asked.sequence.tokens
    assert tokens.index(engine.unthink) - tokens.index(engine.think) - 1 == budget
    assert engine.tokenizer.decode(tokens[tokens.index(engine.unthink) + 1 :]).strip().isdigit()


def test_a_seed_gives_the_same_tokens_in_any_company(engine: Engine) -> None:
    """The same seed gives the same sample, alone and beside other sequences."""
    sampling = Sampling(200, 0.7, seed=11)
    alone = Asked(engine, sampling)
    alone.end()
    crowd = [Asked(engine, Sampling(60 + 10 * seed, 1.0, seed=seed)) for seed in range(9)]
    again = Asked(engine, sampling)
    for asked in (*crowd, again):
        asked.end()
    assert again.sequence.tokens == alone.sequence.tokens


def test_rounds_change_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generating in shorter rounds, each of which reads the tokens so far again, gives the same tokens."""
    said = []
    for tokens in (module.ROUND, 16):
        monkeypatch.setattr(module, "ROUND", tokens)
        asked = [
            Asked(engine, Sampling(120, 0.0)),
            Asked(engine, Sampling(120, 0.0), "What is 3+4?"),
            Asked(engine, Sampling(120, 0.7, seed=11)),
        ]
        said.append([(one.end(), one.sequence.tokens) for one in asked])
    assert said[0] == said[1]


def test_without_a_seed_chance_rules(engine: Engine) -> None:
    """Twenty samples without a seed differ, even after other requests had a seed."""
    Asked(engine, Sampling(60, 1.5, seed=7)).end()
    asked = [Asked(engine, Sampling(60, 1.5)) for _ in range(20)]
    for one in asked:
        one.end()
    assert len({tuple(one.sequence.tokens) for one in asked}) > 1


def test_a_hot_neighbour_changes_nothing(engine: Engine) -> None:
    """A greedy answer is the same, alone and beside samples of high temperature and other lengths."""
    alone = Asked(engine, Sampling(200, 0.0))
    alone.end()
    crowd = [Asked(engine, Sampling(100, 0.5 + number / 5), "What is 3+4?") for number in range(6)]
    again = [Asked(engine, Sampling(200, 0.0)) for _ in range(3)]
    for one in (*crowd, *again):
        one.end()
    assert [one.sequence.tokens for one in again] == [alone.sequence.tokens] * 3


def test_what_cannot_be_generated_fails_alone(engine: Engine) -> None:
    """An error of CTranslate2 reaches the sequence that caused it, and the engine goes on."""
    with pytest.raises(ValueError, match="sampling_topk"):
        Asked(engine, Sampling(10, 1.0, top_k=10**6)).end()
    assert Asked(engine, Sampling(80, 0.0), "What is 3+4?").end() == "stop"
    assert engine.load == (0, 0)


def test_different_seeds_differ(engine: Engine) -> None:
    """At a high temperature, twenty seeds do not all give the same sample."""
    asked = [Asked(engine, Sampling(60, 1.5, seed=seed)) for seed in range(20)]
    for one in asked:
        one.end()
    assert len({tuple(one.sequence.tokens) for one in asked}) > 1


def test_greedy_ignores_the_seed_and_top_k_of_one_is_greedy(engine: Engine) -> None:
    """Temperature 0, `top_k` 1 and a tiny `top_p` all take the most likely token."""
    ways = (
        Sampling(80, 0.0, seed=1),
        Sampling(80, 0.0, seed=2),
        Sampling(80, 1.5, top_k=1, seed=3),
        Sampling(80, 1.5, top_p=1e-9, seed=4),
        Sampling(80, 1.5, top_p=5e-324, seed=5),  # zero in the engine's float32
    )
    asked = [Asked(engine, sampling) for sampling in ways]
    for one in asked:
        one.end()
    assert len({tuple(one.sequence.tokens) for one in asked}) == 1


def test_more_than_the_slots_all_finish(engine: Engine) -> None:
    """Thirty sequences run in batches of four, or alone if seeded; each ends within its limit."""
    asked = [Asked(engine, Sampling(5 + n, 1.0, seed=n if n % 3 == 0 else None)) for n in range(30)]
    for number, one in enumerate(asked):
        finish = one.end()
        assert len(one.sequence.tokens) == 5 + number or finish == "stop"
    assert engine.load == (0, 0)


class Dropped(Asked):
    """A sequence that is cancelled at its third token."""

    def _deliver(self, token: int, finish: Finish | None) -> None:
        self.sequence.cancelled = len(self.sequence.tokens) >= 3


def test_a_cancelled_sequence_leaves_its_neighbours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """If two of four sequences in a batch are cancelled, the other two are the same as alone."""
    monkeypatch.setattr(module, "WORKERS", 1)
    engine = Engine(WEIGHTS, slots=4)
    batches: list[list[Sequence]] = []
    generate = engine._generate
    monkeypatch.setattr(engine, "_generate", lambda batch, own: (batches.append(batch), generate(batch, own)))
    questions = (HARD, "What is 3+4?")
    kinds = (Dropped, Asked, Dropped, Asked)
    asked = [kind(engine, Sampling(150, 0.0), questions[n // 2]) for n, kind in enumerate(kinds)]
    engine.start()  # all four are waiting, so its thread takes them as one batch
    kept = asked[1::2]
    for one in kept:
        one.end()
    alone = [Asked(engine, Sampling(150, 0.0), question) for question in questions]
    for one in alone:
        one.end()
    engine.close()

    assert batches[0] == [one.sequence for one in asked]
    assert [len(one.sequence.tokens) for one in asked[::2]] == [3, 3]
    assert [one.sequence.tokens for one in kept] == [one.sequence.tokens for one in alone]
