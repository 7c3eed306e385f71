"""Works out answers from the text of a question alone, without the generator."""

from __future__ import annotations

import re

_LOSSES = ("sells", "breaks", "gives away", "loses", "lends out", "drops off")
_RANKS = {"second": 1, "third": 2, "fourth": 3, "fifth": 4, "sixth": 5}


def solve(text: str, family: str) -> int:
    """The answer to a question of a family."""
    return {
        "arithmetic": _arithmetic,
        "modular": _modular,
        "story": _story,
        "lists": _lists,
        "compare": _compare,
        "registers": _registers,
    }[family](text)


def _value(expression: str) -> int:
    assert re.fullmatch(r"[0-9+*()-]+", expression)
    return int(eval(expression))


def _arithmetic(text: str) -> int:
    if "Start with" not in text:
        found = re.search(r"(?:Compute|What is|Work out) ([0-9+*()-]+)[.?]$", text)
        return _value(found.group(1))
    value = int(re.search(r"Start with (\d+)", text).group(1))
    for verb, number in re.findall(r"(Add|Take away|Multiply by) (\d+)\.", text):
        value = {"Add": value + int(number), "Take away": value - int(number)}.get(verb, value * int(number))
    return value


def _modular(text: str) -> int:
    if "f(x)" in text:
        factor, shift, modulus = map(int, re.search(r"\((\d+)x \+ (\d+)\) mod (\d+)", text).groups())
        turns = re.search(r"f (?:once|(\d+) times)", text).group(1)
        value = int(re.search(r"(?: to |Start at )(\d+)", text).group(1))
        for _ in range(int(turns or 1)):
            value = (factor * value + shift) % modulus
        return value
    if found := re.search(r"(\d+)\*(\d+) mod (\d+)", text):
        return int(found.group(1)) * int(found.group(2)) % int(found.group(3))
    found = re.search(r"(\d+) mod (\d+)|of (\d+) after division by (\d+)", text)
    value, modulus = (int(number) for number in found.groups() if number)
    return value % modulus


def _story(text: str) -> int:
    start = re.search(r"(?:The baker|The farmer|A girl|A boy|The library|A driver) has (\d+)", text)
    value = int(start.group(1))
    for sentence in text[start.end() :].split(". "):
        number = re.search(r"\d+", sentence)
        if re.search(r" \d+ more", sentence):
            value += int(number.group())
        elif re.search(r"\d+ times as many", sentence):
            value *= int(number.group())
        elif any(re.search(rf"{verb} \d+", sentence) for verb in _LOSSES):
            value -= int(number.group())
    return value


def _lists(text: str) -> int:
    items = [int(item) for item in re.search(r"list: ([\d, ]+)\.", text).group(1).split(", ")]
    if found := re.search(r"greater than (\d+)", text):
        return sum(item > int(found.group(1)) for item in items)
    if "sum" in text:
        return sum(items)
    if found := re.search(r"(\w+) smallest", text.rsplit("its ", 1)[1]):
        return sorted(items)[_RANKS[found.group(1)]]
    places = {"first": 0, "second": 1, "third": 2, "last": -1}
    word = re.search(r"its (\w+) number", text).group(1)
    return {"largest": max(items), "smallest": min(items)}.get(word) or items[places[word]]


def _compare(text: str) -> int:
    kind, options = re.search(r"Which (?:number )?is (\w+): (.*?)\?", text).groups()
    values = [_value(option) for option in re.split(r", | or ", options)]
    return max(values) if kind.startswith("larg") else min(values)


def _registers(text: str) -> int:
    meaning = dict(re.findall(r"\b([a-z]) = ([a-z0-9+*-]+)\.", text))

    def look(name: str) -> int:
        return _value(re.sub(r"[a-z]", lambda inner: str(look(inner.group())), meaning[name]))

    return look(re.search(r"What is ([a-z])\?$", text).group(1))
