"""Straight-line programs compute what a question asks for, step by step; a mistake can be planted."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

HIGHEST = 999


@dataclass(frozen=True, slots=True)
class Ref:
    """The value of an earlier step."""

    index: int


Arg = int | Ref


@dataclass(frozen=True, slots=True)
class Step:
    """One elementary step: an operation over numbers and earlier values."""

    op: str
    args: tuple[Arg, ...]
    label: str = ""


Program = tuple[Step, ...]
Trace = list[tuple[str, int]]


def _affine(args: Sequence[int]) -> tuple[str, int]:
    turn, x, factor, shift, modulus = args
    inner = factor * x + shift
    return f"{turn}){inner},{inner % modulus}", inner % modulus


def _next(args: Sequence[int]) -> tuple[str, int]:
    floor, *items = args
    value = min(item for item in items if item > floor)
    return (f">{floor}={value}" if floor >= 0 else f"least={value}"), value


def _count(args: Sequence[int]) -> tuple[str, int]:
    so_far, item, limit = args
    value = so_far + (item > limit)
    return f"{item}:{value}", value


def _named(name: str, value: int, args: Sequence[int]) -> tuple[str, int]:
    return f"{name} {','.join(map(str, args))}={value}", value


_OPS: dict[str, Callable[[Sequence[int]], tuple[str, int]]] = {
    "+": lambda a: (f"{a[0]}+{a[1]}={a[0] + a[1]}", a[0] + a[1]),
    "-": lambda a: (f"{a[0]}-{a[1]}={a[0] - a[1]}", a[0] - a[1]),
    "*": lambda a: (f"{a[0]}*{a[1]}={a[0] * a[1]}", a[0] * a[1]),
    "%": lambda a: (f"{a[0]}%{a[1]}={a[0] % a[1]}", a[0] % a[1]),
    "max": lambda a: _named("max", max(a), a),
    "min": lambda a: _named("min", min(a), a),
    "pick": lambda a: (f"{a[0]}", a[0]),
    "affine": _affine,
    "next": _next,
    "count": _count,
}


def run(program: Program, fault: tuple[int, int] | None = None) -> Trace:
    """The trace of a program; `fault` = (step, wrong value) plants a mistake that later steps build on."""
    values: list[int] = []
    trace: Trace = []
    for index, step in enumerate(program):
        args = [values[arg.index] if isinstance(arg, Ref) else arg for arg in step.args]
        text, value = _OPS[step.op](args)
        if fault is not None and fault[0] == index:
            text, value = text.removesuffix(str(value)) + str(fault[1]), fault[1]
        values.append(value)
        trace.append((step.label + text, value))
    return trace


def result(program: Program) -> int:
    """The value of the last step."""
    return run(program)[-1][1]


def faulty(program: Program, rng: random.Random) -> tuple[Trace, int] | None:
    """A trace with one plausible mistake and its step, or None if the drawn mistake is not possible."""
    at = rng.randrange(len(program))
    right = run(program)[at][1]
    wrong = rng.choice((right + 1, right - 1, right + 10, right - 10, rng.randrange(100)))
    if wrong == right or wrong < 0:
        return None
    try:
        trace = run(program, (at, wrong))
    except ValueError:
        return None
    if any(not 0 <= value <= HIGHEST for _, value in trace):
        return None
    return trace, at
