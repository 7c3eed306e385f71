"""Batches of token ids for training, drawn from the seeded stream of questions.

A document is one question with its whole thought. Answers given at once, or after a shortened thought, are
branches. A branch sees the document up to the point where it leaves it, so the shared part is computed once.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from examples.tiny_reasoner.chat import END, NO_THOUGHT, THINK, UNTHINK, render
from examples.tiny_reasoner.task import Question, held_out, make_question
from examples.tiny_reasoner.thoughts import long_thought

CUTS = 3
SHORT_CUT = 40  # half of the thoughts are cut before this many tokens
LONGEST_THOUGHT = 320
POOL = 24  # batches drawn together and sorted by length, to reduce padding
LEVELS = {"easy": 0.26, "medium": 0.36, "hard": 0.36, "beyond": 0.02}
KEPT = {
    "story": 0.4,
    "compare": 0.5,
    "modular": 0.5,
}  # learned early, so they get a smaller share

Array = NDArray[np.int64]


@dataclass(slots=True)
class Document:
    """Per token: id, whether it is trained on, branch (0 = trunk), position, how much trunk it sees."""

    ids: list[int] = field(default_factory=list)
    taught: list[bool] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    sees: list[int] = field(default_factory=list)

    def grow(self, ids: list[int], taught: list[bool]) -> None:
        """Lengthen the trunk."""
        first = len(self.ids)
        self.ids += ids
        self.taught += taught
        self.branch += [0] * len(ids)
        self.position += range(first, first + len(ids))
        self.sees += range(first + 1, first + 1 + len(ids))

    def fork(self, at: int, ids: list[int], given: int) -> None:
        """Add a branch that leaves the trunk at a position; its first `given` tokens are not trained on."""
        self.ids += ids
        self.taught += [False] * given + [True] * (len(ids) - given)
        self.branch += [self.branch[-1] + 1] * len(ids)
        self.position += range(at, at + len(ids))
        self.sees += [at] * len(ids)


@dataclass(frozen=True, slots=True)
class Batch:
    """The documents' fields as padded arrays, shape (documents, length)."""

    ids: Array
    taught: NDArray[np.bool_]
    branch: Array
    position: Array
    sees: Array


class Corpus:
    """Documents and batches for one seed."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self._ids = functools.lru_cache(50_000)(lambda text: tokenizer.encode(text).ids)
        self._empty, self._open, self._close = (
            self._ids(t) for t in (NO_THOUGHT, THINK + "\n", UNTHINK + "\n\n")
        )
        self.random = random.Random(seed)
        self.most_steps: int | None = None

    def question(self) -> Question:
        """The next question that is not held out."""
        while True:
            level = self.random.choices(list(LEVELS), list(LEVELS.values()))[0]
            question = make_question(self.random, level, self.most_steps)
            kept = 1.0 if question.level == "easy" else KEPT.get(question.family, 1.0)
            if not held_out(question.text) and self.random.random() < kept:
                return question

    def document(self) -> Document:
        """One question: its thought and answer, the immediate answer, answers after shortened thoughts."""
        question = self.question()
        answer = self._ids(question.answer + END)
        prompt = self._ids(render(question.text, thinking=True))
        thought, taught = self._thought(question)
        whole = len(thought) <= LONGEST_THOUGHT
        thought, taught = thought[:LONGEST_THOUGHT], taught[:LONGEST_THOUGHT]
        start = len(prompt) + len(self._open)
        document = Document()
        document.grow(prompt, [False] * len(prompt))
        document.grow(self._open + thought, [True] * len(self._open) + taught)
        if whole:
            document.grow(self._close + answer, [True] * (len(self._close) + len(answer)))
        document.fork(len(prompt), self._empty + answer, len(self._empty))
        for cut in sorted({self._cut(len(thought)) for _ in range(CUTS)}):
            document.fork(start + cut, self._close + answer, 1)
        return document

    def _thought(self, question: Question) -> tuple[list[int], list[bool]]:
        ids: list[int] = []
        taught: list[bool] = []
        for piece in long_thought(question, self.random):
            part = self._ids(piece.text)
            ids += part
            taught += [piece.taught] * len(part)
        return ids, taught

    def _cut(self, length: int) -> int:
        return self.random.randint(0, min(length, SHORT_CUT) if self.random.random() < 0.5 else length)

    def batches(self, tokens: int) -> Iterator[Batch]:
        """An endless stream of batches of about `tokens` ids, padding included."""
        while True:
            pool: list[Document] = []
            size = 0
            while size < POOL * tokens:
                pool.append(self.document())
                size += len(pool[-1].ids)
            pool.sort(key=lambda document: len(document.ids))
            groups = _grouped(pool, tokens)
            self.random.shuffle(groups)
            yield from map(_padded, groups)


def _grouped(pool: list[Document], tokens: int) -> list[list[Document]]:
    groups: list[list[Document]] = [[]]
    for document in pool:
        if (len(groups[-1]) + 1) * len(document.ids) > tokens and groups[-1]:
            groups.append([])
        groups[-1].append(document)
    return groups


def _padded(group: list[Document]) -> Batch:
    length = max(len(document.ids) for document in group)

    def array(name: str) -> Array:
        rows = np.zeros((len(group), length), dtype=np.int64)
        for row, document in enumerate(group):
            rows[row, : len(document.ids)] = getattr(document, name)
        return rows

    taught = array("taught").astype(np.bool_)
    return Batch(array("ids"), taught, array("branch"), array("position"), array("sees"))
