"""The engine: one path or another gives the same numbers, budgets hold, neighbours do not matter."""

from __future__ import annotations

import queue

import numpy as np
import pytest

from examples.tiny_reasoner.chat import render
from examples.tiny_reasoner.engine import Engine, Finish, Sampling, Sequence
from examples.tiny_reasoner.forward import Qwen3
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


def test_reading_at_once_and_token_by_token_agree() -> None:
    """Prefill and decode give the same logits, whatever the neighbours in the batch and their length."""
    model = Qwen3(WEIGHTS, slots=2)
    ids = np.random.default_rng(0).integers(0, 600, 60)
    whole = model.prefill(0, ids)
    model.prefill(0, ids[:20])
    model.prefill(1, ids[:50])
    for place in range(50, 60):
        logits = model.decode(np.array([ids[place - 30], ids[place]]), np.array([place - 30, place]))
    assert np.abs(logits[1] - whole).max() < 1e-4


def test_transformers_agrees() -> None:
    """The transformers library computes the same logits from the same directory."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32)
    ids = np.random.default_rng(1).integers(0, 600, 80)
    logits = theirs(torch.tensor(ids)[None]).logits[0, -1].detach().numpy()
    assert np.abs(Qwen3(WEIGHTS, slots=1).prefill(0, ids) - logits).max() < 1e-3


@pytest.mark.parametrize("budget", [0, 1, 7, 30])
def test_a_budget_ends_the_thought(engine: Engine, budget: int) -> None:
    """The end of the thought is forced when its tokens are spent, and an answer follows."""
    asked = Asked(engine, Sampling(budget + 16, 0.0, thinking_budget=budget))
    assert asked.end() == "stop"
    tokens = asked.sequence.tokens
    assert tokens.index(engine.unthink) - tokens.index(engine.think) - 1 == budget
    assert engine.tokenizer.decode(tokens[tokens.index(engine.unthink) + 1 :]).strip().isdigit()


def test_a_seed_gives_the_same_tokens_in_any_company(engine: Engine) -> None:
    """The same seed gives the same sample alone and among others."""
    sampling = Sampling(200, 0.7, seed=11)
    alone = Asked(engine, sampling)
    alone.end()
    crowd = [Asked(engine, Sampling(60 + 10 * seed, 1.0, seed=seed)) for seed in range(9)]
    again = Asked(engine, sampling)
    for asked in (*crowd, again):
        asked.end()
    assert again.sequence.tokens == alone.sequence.tokens


def test_different_seeds_differ(engine: Engine) -> None:
    """At a high temperature, twenty seeds do not all give the same sample."""
    asked = [Asked(engine, Sampling(60, 1.5, seed=seed)) for seed in range(20)]
    for one in asked:
        one.end()
    assert len({tuple(one.sequence.tokens) for one in asked}) > 1


def test_greedy_ignores_the_seed_and_top_k_of_one_is_greedy(engine: Engine) -> None:
    """Temperature zero, one candidate, or a tiny nucleus all take the most likely token."""
    ways = (
        Sampling(80, 0.0, seed=1),
        Sampling(80, 0.0, seed=2),
        Sampling(80, 1.5, top_k=1, seed=3),
        Sampling(80, 1.5, top_p=1e-9, seed=4),
    )
    asked = [Asked(engine, sampling) for sampling in ways]
    for one in asked:
        one.end()
    assert len({tuple(one.sequence.tokens) for one in asked}) == 1


def test_more_than_the_slots_all_finish(engine: Engine) -> None:
    """Thirty sequences share four slots, and each ends within its limit."""
    asked = [Asked(engine, Sampling(5 + seed, 1.0, seed=seed)) for seed in range(30)]
    for number, one in enumerate(asked):
        finish = one.end()
        assert len(one.sequence.tokens) == 5 + number or finish == "stop"
    assert engine.load == (0, 0)


def test_a_cancelled_sequence_leaves_its_neighbours_alone(engine: Engine) -> None:
    """Dropping one of two sequences does not change what the other one says."""
    alone = Asked(engine, Sampling(150, 0.7, seed=5))
    alone.end()
    dropped = Asked(engine, Sampling(1_500, 1.5, seed=6))
    kept = Asked(engine, Sampling(150, 0.7, seed=5))
    dropped.sequence.cancelled = True
    kept.end()
    assert kept.sequence.tokens == alone.sequence.tokens
