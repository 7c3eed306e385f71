"""Stop strings are found in an answer as vLLM finds them, however its text arrives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from gateway.openai_api.stop_strings import StopSearch, StopStrings, fields_about_stops, stop_strings


def raw(**fields: Any) -> dict[str, Raw]:
    return {name: Raw(json.dumps(value).encode()) for name, value in fields.items()}


def vllm(tokens: list[str], stops: StopStrings) -> tuple[str, str | None]:
    """What vLLM 0.32 shows of an output, and the string that stopped it.

    After `v1/engine/detokenizer.py`: the strings are looked for after every token, in all text so far.
    """
    text = ""
    for number, token in enumerate(tokens, 1):
        text += token
        if number <= stops.min_tokens or not token:
            continue
        found = [
            (at + len(s), at, s) for s in stops.strings if (at := text.find(s, _from(text, token, s))) >= 0
        ]
        if found:
            end, start, string = min(found, key=lambda one: one[0])
            return text[: end if stops.included else start], string
    return text, None


def _from(text: str, token: str, string: str) -> int:
    return max(0, len(text) - len(token) - len(string) + 1)


def ours(tokens: list[str], stops: StopStrings) -> tuple[str, str | None]:
    search, shown = StopSearch(stops, parsed=True), ""
    for number, token in enumerate(tokens, 1):
        shown += search.feed(token, counts=number > stops.min_tokens)
        if search.found is not None:
            return shown, search.found
    return shown + search.feed("", last=True), search.found


TEXTS = st.text("ab.\n", min_size=1, max_size=4)
STOPS = st.builds(
    StopStrings, st.lists(TEXTS, min_size=1, max_size=3).map(tuple), st.booleans(), st.integers(0, 3)
)


@given(st.lists(st.text("ab.\n", max_size=3), max_size=12), STOPS)
def test_same_as_vllm(tokens: list[str], stops: StopStrings) -> None:
    """The same text is shown as at vLLM, and the same string is named."""
    tokens = [".", *tokens]  # vLLM would count white space at the beginning, see below

    assert ours(tokens, stops) == vllm(tokens, stops)


@settings(max_examples=50)
@given(st.text("ab.\n", max_size=20), STOPS.filter(lambda stops: not stops.min_tokens), st.data())
def test_split_does_not_matter(text: str, stops: StopStrings, data: st.DataObject) -> None:
    """The same is shown of a text however it is cut into deltas."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    deltas = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    assert ours(deltas, stops) == ours([text], stops)


@given(st.lists(st.text("ab.\n", max_size=3), max_size=12), STOPS)
def test_nothing_is_held_that_cannot_begin_a_string(tokens: list[str], stops: StopStrings) -> None:
    """What is held back is the beginning of a string, and shown text never contains one that counts."""
    search, shown = StopSearch(stops, parsed=True), ""
    for token in tokens:
        shown += search.feed(token)
        if search.found is not None:
            break
    held = "".join(tokens)[len(shown) :]

    assert search.found is not None or any(s.startswith(held) and s != held for s in stops.strings)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("\n\nYes.\n\nNo", "\n\nYes."),
        (" \n\n\n", " \n\n\n"),
        ("\n\n", "\n\n"),
        ("Yes\n\n", "Yes"),
    ],
)
def test_space_before_the_answer(content: str, shown: str) -> None:
    """The lines between thought and answer do not end the answer before it has begun."""
    assert ours(list(content), StopStrings(("\n\n",))) == (shown, None if shown == content else "\n\n")


def test_string_that_begins_with_space() -> None:
    """A string that ends in the answer counts, although it begins before it."""
    assert ours([" ", "t0", " t1"], StopStrings((" t0",))) == ("", " t0")


def test_space_is_not_held_for_long() -> None:
    """Endless white space is shown as it comes, although a thought could follow it."""
    search = StopSearch(StopStrings(("\n\n",)))
    shown = "".join([search.feed("\n") for _ in range(200)])

    assert shown == "\n" * 199


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("<think>a. b.</think>c. d", "<think>a. b.</think>c"),
        (" <think>a. b", " <think>a. b"),
        ("<think>a</think>", "<think>a</think>"),
        ("<th. b", "<th"),
        ("<", "<"),
        ("I <think>. b", "I <think>"),
    ],
)
def test_thought_in_the_answer(content: str, shown: str, size: int) -> None:
    """A thought that the backend has left in the answer is not searched."""
    search = StopSearch(StopStrings((".",)))
    deltas = [content[at : at + size] for at in range(0, len(content), size)]
    said = "".join([search.feed(delta) for delta in deltas if search.found is None])

    assert said + search.feed("", last=True) == shown


@pytest.mark.parametrize(
    ("fields", "stops"),
    [
        ({"stop": "x"}, StopStrings(("x",))),
        ({"stop": ["x", "\n"], "include_stop_str_in_output": True}, StopStrings(("x", "\n"), included=True)),
        ({"stop": "x", "include_stop_str_in_output": "yes"}, StopStrings(("x",), included=True)),
        ({"stop": "x", "include_stop_str_in_output": None}, StopStrings(("x",))),
        ({"stop": "x", "min_tokens": 7}, StopStrings(("x",), min_tokens=7)),
        ({"stop": "x", "min_tokens": "7"}, StopStrings(("x",), min_tokens=7)),
        ({"stop": "x", "min_tokens": -1}, StopStrings(("x",))),
        ({"stop": "x", "echo": False, "use_beam_search": None}, StopStrings(("x",))),
        ({"stop": ["\n" * 64] * 64}, StopStrings(("\n" * 64,) * 64)),
        *[
            ({"stop": stop}, None)
            for stop in (None, [], "", ["x", ""], 7, ["x", 7], {"x": 1}, "x" * 5000, ["x"] * 65)
        ],
        *[({"stop": "x", name: True}, None) for name in ("echo", "use_beam_search")],
        ({}, None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_fields(fields: dict[str, Any], stops: StopStrings | None) -> None:
    """Strings that vLLM takes are read, with what it reads beside them; it judges all others itself."""
    assert stop_strings(raw(**fields)) == stops
    assert stop_strings(fields_about_stops(raw(**fields))) == stops
