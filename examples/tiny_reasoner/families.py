"""The families of questions. Each draws a program with a given number of steps and puts it into words."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from examples.tiny_reasoner.programs import Arg, Program, Ref, Step, run

TOP = 99
PRODUCT_STEPS = 30  # a two-digit product and its remainder, counted in digits of long multiplication


@dataclass(frozen=True, slots=True)
class Draft:
    """A program in words; other sentences may come between `loose` ones."""

    family: str
    sentences: tuple[str, ...]
    program: Program
    difficulty: int
    loose: bool = False


Maker = Callable[[random.Random, int], Draft | None]


def _operand(rng: random.Random, op: str, value: int) -> int | None:
    """A second operand that keeps the result within 0..99."""
    if op == "+":
        high = min(20, TOP - value)
        return rng.randint(1, high) if high >= 1 else None
    if op == "-":
        return rng.randint(1, min(20, value)) if value >= 1 else None
    high = min(9, TOP // max(value, 1))
    return rng.randint(2, high) if high >= 2 else None


def _chain(rng: random.Random, steps: int) -> tuple[int, list[tuple[str, int]]]:
    """A start and `steps` operations whose running value stays within 0..99."""
    start = rng.randint(1, 20)
    value = start
    moves: list[tuple[str, int]] = []
    while len(moves) < steps:
        op = rng.choice("++--*")
        operand = _operand(rng, op, value)
        if operand is not None:
            value = {"+": value + operand, "-": value - operand, "*": value * operand}[op]
            moves.append((op, operand))
    return start, moves


def _chain_program(start: int, moves: list[tuple[str, int]]) -> Program:
    return tuple(
        Step(op, (start if index == 0 else Ref(index - 1), operand))
        for index, (op, operand) in enumerate(moves)
    )


def _expression(rng: random.Random, steps: int) -> tuple[str, Program] | None:
    """A bracketed expression: a chain in which an operand may itself be a small product or bracket."""
    program: list[Step] = []
    value = rng.randint(1, 20)
    acc: Arg = value
    text, loose = str(value), False  # loose: the text so far has + or - at the top level
    while len(program) < steps:
        op = rng.choice("++--*")
        inner = None
        if steps - len(program) >= 2 and program and rng.random() < 0.4:
            inner = _inner(rng, op)
        operand = inner[0] if inner else _operand(rng, op, value)
        if operand is None:
            continue
        new = {"+": value + operand, "-": value - operand, "*": value * operand}[op]
        if not 0 <= new <= TOP:
            continue
        right: Arg = operand
        if inner:
            program.append(inner[2])
            right = Ref(len(program) - 1)
        left = f"({text})" if op == "*" and loose else text
        text = f"{left}{op}{inner[1] if inner else operand}"
        loose = op in "+-" or (loose and op != "*")
        program.append(Step(op, (acc, right)))
        value, acc = new, Ref(len(program) - 1)
    return text, tuple(program)


def _inner(rng: random.Random, op: str) -> tuple[int, str, Step]:
    if op != "*":
        a, b = rng.randint(2, 9), rng.randint(2, 9)
        return a * b, f"{a}*{b}", Step("*", (a, b))
    a, b = rng.randint(1, 5), rng.randint(1, 4)
    return a + b, f"({a}+{b})", Step("+", (a, b))


def arithmetic(rng: random.Random, steps: int) -> Draft | None:
    """A bracketed expression with precedence, or the same as spoken instructions."""
    if rng.random() < 0.35:
        start, moves = _chain(rng, steps)
        verbs = {"+": "Add {}.", "-": "Take away {}.", "*": "Multiply by {}."}
        said = [f"Start with {start}.", *(verbs[op].format(operand) for op, operand in moves)]
        program = _chain_program(start, moves)
        return Draft("arithmetic", (" ".join(said), "What do you get?"), program, steps)
    drawn = _expression(rng, steps)
    if drawn is None:
        return None
    lead = rng.choice(("Compute {}.", "What is {}?", "Work out {}."))
    return Draft("arithmetic", (lead.format(drawn[0]),), drawn[1], steps)


def remainder(rng: random.Random, steps: int) -> Draft:
    """One division with remainder."""
    value, modulus = rng.randint(5, 30), rng.randint(3, 9)
    text = rng.choice(("What is {} mod {}?", "What remains of {} after division by {}?"))
    return Draft("modular", (text.format(value, modulus),), (Step("%", (value, modulus)),), 1)


def iterated(rng: random.Random, steps: int) -> Draft:
    """A map over residues applied many times; the text is as short for 2 times as for 40."""
    turns = (steps + 1) // 2 if steps < 24 else steps
    modulus, factor, shift = rng.choice((7, 11, 13, 17, 19)), rng.randint(2, 5), rng.randint(1, 9)
    x = rng.choice([x for x in range(1, modulus) if (factor * x + shift) % modulus != x])
    program = tuple(
        Step("affine", (turn + 1, x if turn == 0 else Ref(turn - 1), factor, shift, modulus))
        for turn in range(turns)
    )
    rule = f"Let f(x) = ({factor}x + {shift}) mod {modulus}."
    times = "once" if turns == 1 else f"{turns} times"
    ask = rng.choice((f"Apply f {times} to {x}.", f"Start at {x} and apply f {times}. Where do you end?"))
    return Draft("modular", (rule, ask), program, 2 * turns, loose=True)


def long_product(rng: random.Random, steps: int) -> Draft:
    """A short question that needs more than two steps of a small model."""
    a, b, modulus = rng.randint(23, 98), rng.randint(23, 98), rng.randint(53, 97)
    program = (Step("*", (a, b)), Step("%", (Ref(0), modulus)))
    text = rng.choice(("What is {}*{} mod {}?", "Compute {}*{} mod {}."))
    return Draft("modular", (text.format(a, b, modulus),), program, PRODUCT_STEPS)


_SCENES = (
    ("The baker", "loaves", "bakes {} more", "sells {}", "bakes until there are {} times as many"),
    ("The farmer", "eggs", "collects {} more", "breaks {}", "trades for {} times as many"),
    ("A girl", "shells", "finds {} more", "gives away {}", "collects until she has {} times as many"),
    ("A boy", "marbles", "wins {} more", "loses {}", "swaps them for {} times as many"),
    ("The library", "maps", "buys {} more", "lends out {}", "copies until it has {} times as many"),
    ("A driver", "boxes", "loads {} more", "drops off {}", "loads up to {} times as many"),
)
_ASIDES = ("A neighbour has {} {}.", "Last year it was {} {}.", "A bag would hold {} {}.")


def story(rng: random.Random, steps: int) -> Draft:
    """A small word problem over the same operations, sometimes with an irrelevant number."""
    who, what, gain, loss, grow = rng.choice(_SCENES)
    start, moves = _chain(rng, steps)
    verbs = {"+": gain, "-": loss, "*": grow}
    pronoun = {"A girl": "She", "A boy": "He", "The library": "It"}.get(who, "Then the " + who.split()[1])
    said = [f"{who} has {start} {what}."]
    said += [f"{pronoun} {verbs[op].format(operand)}." for op, operand in moves]
    if rng.random() < 0.3:
        said.insert(rng.randint(1, len(said)), rng.choice(_ASIDES).format(rng.randint(2, 30), what))
    said.append(f"How many {what} are there now?")
    return Draft("story", tuple(said), _chain_program(start, moves), steps, loose=True)


def _listed(items: list[int]) -> str:
    return ", ".join(map(str, items))


def list_lookup(rng: random.Random, steps: int) -> Draft:
    """One look-up in a list that may be long."""
    items = rng.sample(range(1, 100), rng.randint(3, 9))
    at, word = rng.choice(((0, "first"), (1, "second"), (2, "third"), (len(items) - 1, "last")))
    kind = rng.choice(("largest", "smallest", word))
    value = {"largest": max(items), "smallest": min(items)}.get(kind, items[at])
    text = f"Here is a list: {_listed(items)}. What is its {kind} number?"
    return Draft("lists", (text,), (Step("pick", (value,)),), 1)


def list_work(rng: random.Random, steps: int) -> Draft | None:
    """Sum a list, count in it, or rank it."""
    kind = rng.choice(("sum", "rank", "count"))
    if kind == "sum":
        return _sum_of(rng, steps)
    if kind == "count":
        if steps < 3:
            return None
        items = rng.sample(range(1, 100), steps)
        limit = rng.randint(10, 90)
        program = tuple(
            Step("count", (0 if index == 0 else Ref(index - 1), item, limit))
            for index, item in enumerate(items)
        )
        ask = f"How many of its numbers are greater than {limit}?"
    else:
        if steps > 4:
            return None
        items = rng.sample(range(1, 100), rng.randint(steps + 1, 6))
        program = tuple(Step("next", (-1 if i == 0 else Ref(i - 1), *items)) for i in range(steps))
        name = ("", "", "second", "third", "fourth")[steps]
        ask = f"What is its {name} smallest number?"
    return Draft("lists", (f"Here is a list: {_listed(items)}. {ask}",), program, steps)


def _sum_of(rng: random.Random, steps: int) -> Draft | None:
    items = [rng.randint(1, 20) for _ in range(steps + 1)]
    if sum(items) > TOP:
        return None
    program = tuple(
        Step("+", (items[0] if index == 0 else Ref(index - 1), item)) for index, item in enumerate(items[1:])
    )
    return Draft("lists", (f"Here is a list: {_listed(items)}. What is its sum?",), program, steps)


def compare_numbers(rng: random.Random, steps: int) -> Draft:
    """Two or three plain numbers."""
    items = rng.sample(range(1, 100), rng.randint(2, 3))
    kind, op = rng.choice((("larger", "max"), ("smaller", "min")))
    word = kind if len(items) == 2 else kind.removesuffix("r") + "st"
    text = f"Which number is {word}: {', '.join(map(str, items[:-1]))} or {items[-1]}?"
    return Draft("compare", (text,), (Step(op, tuple(items)),), 1)


def compare_expressions(rng: random.Random, steps: int) -> Draft | None:
    """Two small expressions: the answer is the larger or smaller value."""
    if steps < 3:
        return None
    first = rng.randint(1, min(steps - 2, 5))
    if steps - 1 - first > 6:
        return None
    left, right = _expression(rng, first), _expression(rng, steps - 1 - first)
    if left is None or right is None or run(left[1])[-1][1] == run(right[1])[-1][1]:
        return None
    shifted = tuple(
        Step(step.op, tuple(Ref(arg.index + first) if isinstance(arg, Ref) else arg for arg in step.args))
        for step in right[1]
    )
    kind, op = rng.choice((("larger", "max"), ("smaller", "min")))
    program = (*left[1], *shifted, Step(op, (Ref(first - 1), Ref(steps - 2))))
    text = f"Which is {kind}: {left[0]} or {right[0]}? Give its value."
    return Draft("compare", (text,), program, steps)


def registers(rng: random.Random, steps: int) -> Draft:
    """Definitions that build on each other, in any order, some of them irrelevant."""
    names = rng.sample("abcdghkmnpqrstuvw", steps + rng.randint(1, 3))
    start, second = rng.randint(1, 20), rng.randint(1, 20)
    program = [Step("+", (start, second), f"{names[0]}:")]
    lines = [f"{names[0]} = {start}+{second}."]
    value = start + second
    for index in range(1, steps):
        operand = None
        while operand is None:
            op = rng.choice("++--*")
            operand = _operand(rng, op, value)
        value = {"+": value + operand, "-": value - operand, "*": value * operand}[op]
        program.append(Step(op, (Ref(index - 1), operand), f"{names[index]}:"))
        lines.append(f"{names[index]} = {names[index - 1]}{op}{operand}.")
    for name in names[steps:]:
        lines.append(f"{name} = {rng.randint(1, 20)}+{rng.randint(1, 20)}.")
    if rng.random() < 0.5:
        rng.shuffle(lines)
    return Draft("registers", (" ".join(lines), f"What is {names[steps - 1]}?"), tuple(program), steps)


EASY: tuple[Maker, ...] = (arithmetic, remainder, story, list_lookup, compare_numbers, registers)
CHAINS: tuple[Maker, ...] = (arithmetic, iterated, story, list_work, compare_expressions, registers)
