"""Samples thoughts, ends each of them at every thinking budget, and samples the answer that follows.

A thinking budget ends a thought after that many tokens, and the model answers from what it has, as in
`engine` and in vLLM. So one sampled thought serves all budgets: each budget below its length ends it early,
and every budget from its length on leaves it as it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ctranslate2

from examples.tiny_reasoner.chat import END, THINK, UNTHINK, render
from examples.tiny_reasoner.convert import convert
from examples.tiny_reasoner.engine import Sampling
from examples.tiny_reasoner.task import Question, grade
from examples.tiny_reasoner.tokens import Tokens

ANSWER_ROOM = 16
"""Tokens that a completion may have beyond its thinking budget, the two marks of the thought included."""
MARKS = 2
BATCH = 256

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled completion."""

    right: bool
    tokens: int
    """Completion tokens, the thought and its marks included."""


class Model:
    """Samples continuations in batches of prompts of equal length, which CTranslate2 reads at once."""

    def __init__(
        self,
        directory: Path,
        temperature: float,
        seed: int,
        tick: Callable[[int, int], object] = lambda done, total: None,
    ) -> None:
        self.tokenizer = Tokens(directory / "tokenizer.json")
        self.end, self.think, self.unthink = map(self.tokenizer.special, (END, THINK, UNTHINK))
        self._names = self.tokenizer.vocabulary
        self._temperature, self._tick = temperature, tick
        ctranslate2.set_random_seed(seed)
        self._generator = ctranslate2.Generator(
            "tiny", files=convert(directory, self._names), compute_type="float32", intra_threads=1
        )

    def prompt(self, question: Question, *, thinking: bool) -> Ids:
        """The token ids that the model continues."""
        return tuple(self.tokenizer.encode(render(question.text, thinking=thinking)))

    def continuations(self, prompts: Sequence[Ids], most: int, end: int) -> list[Ids]:
        """A sampled continuation of each prompt, up to and including the token `end` or `most` tokens."""
        by_length: defaultdict[int, list[int]] = defaultdict(list)
        for index, prompt in enumerate(prompts):
            by_length[len(prompt)].append(index)
        options = Sampling(most, self._temperature).options
        found: list[Ids] = [()] * len(prompts)
        done = 0
        for places in by_length.values():
            for batch in (places[at : at + BATCH] for at in range(0, len(places), BATCH)):
                results = self._generator.generate_batch(
                    [[self._names[token] for token in prompts[index]] for index in batch],
                    max_length=most,
                    end_token=[end, self.end],
                    return_end_token=True,
                    include_prompt_in_result=False,
                    **options,
                )
                for index, result in zip(batch, results, strict=True):
                    found[index] = tuple(result.sequences_ids[0])
                done += len(batch)
                self._tick(done, len(prompts))
        return found

    def sample(self, question: Question, thought: Ids, answer: Ids) -> Sample:
        """The completion of this thought, with its marks, and this visible answer."""
        return Sample(grade(self.tokenizer.decode(answer), question.answer), len(thought) + len(answer))


def ended_at(budget: int, thought: Ids, unthink: int) -> Ids:
    """The thought as the budget leaves it: whole, or `budget` tokens and the mark that ends it.

    thought: begins with the mark that opens it, and ends with the one that closes it unless it was too long.
    """
    return thought if len(thought) <= budget + 1 else (*thought[: budget + 1], unthink)


def direct_samples(model: Model, questions: Sequence[Question], count: int) -> list[list[Sample]]:
    """Answers without a thought, `count` of each question, [N][count]."""
    prompts = [model.prompt(question, thinking=False) for question in questions for _ in range(count)]
    answers = model.continuations(prompts, ANSWER_ROOM, model.end)
    asked = [question for question in questions for _ in range(count)]
    samples = [model.sample(question, (), answer) for question, answer in zip(asked, answers, strict=True)]
    return [samples[at : at + count] for at in range(0, len(samples), count)]


def thinking_samples(
    model: Model, questions: Sequence[Question], budgets: Sequence[int], count: int
) -> dict[int, list[list[Sample]]]:
    """Answers at each thinking budget above zero, `count` of each question, [N][count] by budget.

    The samples of a question share their `count` thoughts between the budgets. Budgets that leave a thought
    the same share its answer too.
    """
    asked = [question for question in questions for _ in range(count)]
    prompts = [model.prompt(question, thinking=True) for question in asked]
    thoughts = model.continuations(prompts, max(budgets) + MARKS, model.unthink)
    ended = [{budget: ended_at(budget, thought, model.unthink) for budget in budgets} for thought in thoughts]
    cuts = [
        (index, cut) for index, by_budget in enumerate(ended) for cut in dict.fromkeys(by_budget.values())
    ]
    heard = model.continuations([prompts[index] + cut for index, cut in cuts], ANSWER_ROOM - MARKS, model.end)
    answers = {
        place: model.sample(asked[place[0]], place[1], answer)
        for place, answer in zip(cuts, heard, strict=True)
    }
    samples = {b: [answers[i, by_budget[b]] for i, by_budget in enumerate(ended)] for b in budgets}
    return {
        budget: [found[at : at + count] for at in range(0, len(found), count)]
        for budget, found in samples.items()
    }
