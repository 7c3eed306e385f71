"""The engine's own tokenizer agrees with the `tokenizers` library, and loses no text."""

from __future__ import annotations

import json
import random

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.tiny_reasoner.chat import CHAT_TEMPLATE, END, START, THINK, UNTHINK, render_chat
from examples.tiny_reasoner.serve import WEIGHTS
from examples.tiny_reasoner.task import make_question
from examples.tiny_reasoner.tokens import Tokens

TOKENS = Tokens(WEIGHTS / "tokenizer.json")
READABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.just("\n"))
MARKS = (START, END, THINK, UNTHINK)
SPECIAL = (*MARKS, "<|endoftext|>")  # decoding may leave them out
HISTORY = st.lists(
    st.tuples(st.sampled_from(("system", "user", "assistant")), READABLE), min_size=1, max_size=4
)


@given(READABLE)
def test_text_survives_the_round_trip(text: str) -> None:
    """Encoding and decoding gives the text back."""
    ids = TOKENS.encode(text)
    if not any(mark in text for mark in SPECIAL):
        assert TOKENS.decode(ids) == text


@pytest.mark.parametrize("mark", ["<|endoftext|>", START, END])
def test_special_tokens_have_no_text(mark: str) -> None:
    """What only marks the ends of messages and texts is no part of a text."""
    assert TOKENS.decode(TOKENS.encode(f"a{mark}b")) == "ab"


def test_marks_are_one_token_each() -> None:
    """The marks of messages and thoughts are single tokens, and so is every digit."""
    assert [len(TOKENS.encode(mark)) for mark in MARKS] == [1, 1, 1, 1]
    assert len(TOKENS.encode("123456")) == 6


@given(READABLE)
def test_the_library_agrees(text: str) -> None:
    """The `tokenizers` library reads the same ids from the same file."""
    library = pytest.importorskip("tokenizers", reason="the tokenizers library is not installed")
    theirs = library.Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    assert theirs.encode(text).ids == TOKENS.encode(text)


def test_questions_take_few_tokens() -> None:
    """A question takes less than half as many tokens as characters, because frequent words are tokens."""
    rng = random.Random(0)
    texts = [make_question(rng).text for _ in range(200)]
    assert sum(len(TOKENS.encode(text)) for text in texts) < 0.5 * sum(map(len, texts))


@given(HISTORY, st.booleans())
def test_the_chat_template_writes_what_the_server_writes(
    history: list[tuple[str, str]], thinking: bool
) -> None:
    """The Jinja template that other engines use and the server's own rendering agree."""
    template = jinja2.Template(CHAT_TEMPLATE)
    messages = [{"role": role, "content": text} for role, text in history]
    written = template.render(messages=messages, add_generation_prompt=True, enable_thinking=thinking)
    assert written == render_chat(history, thinking=thinking)


def test_the_template_is_shipped_with_the_model() -> None:
    """tokenizer_config.json has the template, so that vLLM and transformers use it."""
    config = json.loads((WEIGHTS / "tokenizer_config.json").read_text())
    assert config["chat_template"] == CHAT_TEMPLATE
