"""Which answers a run needs, and in which order they are asked for. No I/O: the seed is an argument."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from random import Random
from typing import NamedTuple

from msgspec import Struct

from gateway.evidence.measuring.prompts import MeasuredPrompt
from gateway.routing.tiers import TierLadder


class RungError(ValueError):
    """A rung that the model does not have."""


class MeasuredRung(Struct, frozen=True):
    """A rung to measure."""

    name: str
    """The name of its tier; of a rung between two tiers, its thinking tokens."""
    index: int
    """Position on the ladder."""
    thinking: int
    answer: int | None
    """Completion tokens in addition to the thinking; None for no limit."""


class AnswerKey(NamedTuple):
    """One answer of a run."""

    prompt: str
    """The id of the prompt."""
    rung: str
    sample: int


def rungs_of(ladder: TierLadder, wanted: str | None) -> tuple[MeasuredRung, ...]:
    """The rungs that an option names, shortest first.

    wanted: names or thinking tokens, separated by commas; `all` for every rung; None for the named tiers.

    Raises: RungError.
    """
    by_name: dict[str, MeasuredRung] = {}
    for index, rung in enumerate(ladder.rungs):
        name = ladder.names[rung.tier] if rung.named else str(rung.thinking)
        by_name[name] = MeasuredRung(name, index, rung.thinking, rung.answer)
    if wanted == "all":
        return tuple(by_name.values())
    if wanted is None:
        return tuple(by_name[name] for name in ladder.names)
    tokens = {str(rung.thinking): name for name, rung in by_name.items()}
    chosen = set()
    for each in (word.strip() for word in wanted.split(",")):
        name = each if each in by_name else tokens.get(each, "")
        if name not in by_name:
            raise RungError(f"no rung {each!r}; there are {', '.join(by_name)}")
        chosen.add(name)
    return tuple(rung for name, rung in by_name.items() if name in chosen)


def drawn(prompts: Sequence[MeasuredPrompt], seed: int, limit: int | None = None) -> list[MeasuredPrompt]:
    """The prompts in random order, `limit` of them. A higher limit adds prompts and keeps the first ones."""
    order = sorted(prompts, key=lambda each: each.id)
    Random(seed).shuffle(order)  # noqa: S311 - an order to measure in needs no secrecy
    return order[:limit]


def answers_of(
    prompts: Sequence[MeasuredPrompt], rungs: Sequence[MeasuredRung], samples: int, seed: int
) -> Iterator[AnswerKey]:
    """All answers, prompt after prompt, the rungs of each prompt in random order.

    So whatever part of them has been asked for, no rung and no kind of prompt is ahead of the others.
    """
    for prompt in prompts:
        keys = [AnswerKey(prompt.id, rung.name, sample) for rung in rungs for sample in range(samples)]
        Random(f"{seed} {prompt.id}").shuffle(keys)  # noqa: S311
        yield from keys


def left_to_do(keys: Iterator[AnswerKey], done: Container[AnswerKey]) -> list[AnswerKey]:
    """Those that have no answer yet."""
    return [key for key in keys if key not in done]
