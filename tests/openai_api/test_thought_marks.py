"""A thought that a backend sends as an answer is recognised, and prose about its marks is not."""

from __future__ import annotations

import pytest

from gateway.openai_api.thought_marks import LOOK, lost_marks


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("<think>\nOkay, the user", "<think>"),
        ("\n\n<think>so</think>42", "<think>"),
        ("<seed:think>so", "<seed:think>"),
        ("<mm:think>so", "<mm:think>"),
        ("<think:opensource>so", "<think:opensource>"),
        ("[THINK]so[/THINK]42", "[THINK]"),
        ("◁think▷so", "◁think▷"),
        ("<|open|>think<|sep|>so", "<|open|>think<|sep|>"),
        ("<|channel|>analysis<|message|>We", "<|channel|>analysis"),
        ("analysisThe user asks.assistantfinal42", "analysis"),
        ("<|channel>thought\nso", "<|channel>thought"),
        ("<|START_THINKING|>so", "<|START_THINKING|>"),
        ("<ifm|think>so", "<ifm|think>"),
        ("Here is my thought process: so", "Here is my thought process:"),
        ("Here's my thought process: so", "Here's my thought process:"),
        ("Okay, so it is 42\n</think>\n\n42", "</think>"),
        ("Okay, so it is 42</think>42", "</think>"),
        ("Okay.\n</think>", "</think>"),
        ("Okay<|END_THINKING|><|START_RESPONSE|>42", "<|END_THINKING|>"),
    ],
)
def test_thought_in_an_answer(text: str, mark: str) -> None:
    assert lost_marks(text) == mark


@pytest.mark.parametrize(
    "text",
    [
        "",
        "42",
        "analysis of the text",
        "Analysis: the text",
        "I think so.",
        "Here is my recipe",
        "Close it with `</think>`.",
        'The token "</think>" ends a thought.',
        "the </think> tag ends a thought",
        "It writes <think> and then\n</think>\nafter it.",
        "```html\n<thin>\n</thin>\n```",
    ],
)
def test_answer_that_only_speaks_of_marks(text: str) -> None:
    assert lost_marks(text) is None


def test_the_start_of_an_answer_shows_its_opening() -> None:
    assert lost_marks(("<|START_THINKING|>" + "x" * 9000)[:LOOK]) == "<|START_THINKING|>"
