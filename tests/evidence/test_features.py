"""Features of prompts: exactly what the encoder gives, compact, and without the text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.evidence.features import UnknownFeatures, decode_features, encode_features
from router_model.encoders.ngrams import ngram_features, part_read

PROMPT = "A train leaves at 9:40 and travels 120 miles at 60 mph. When does it arrive? Explain each step."


def encoded(prompt: str) -> bytes:
    return encode_features(part_read(prompt), len(prompt))


@given(st.text(max_size=400))
@example("")
@example("a" * 9_000)
@example("one two " * 3_000)
@example("\ud800 broken \0")
def test_decoding_gives_what_the_encoder_gives(prompt: str) -> None:
    expected, found = ngram_features(prompt), decode_features(encoded(prompt))
    for name in ("indices", "values", "dense"):
        wanted, got = getattr(expected, name), getattr(found, name)
        assert got.dtype == wanted.dtype
        # The kernel and NumPy round logarithms in other places.
        np.testing.assert_allclose(got, wanted, rtol=1e-6 if name == "dense" else 0, atol=0)


def test_they_are_compact_and_lack_the_words() -> None:
    data = encoded(PROMPT)
    assert len(data) < 8 * len(PROMPT)
    assert len(encoded(PROMPT * 100)) < 6_000
    assert not any(word.encode() in data for word in PROMPT.split() if len(word) > 3)


def test_a_guess_can_be_checked() -> None:
    """As the documents say: the same prompt gives the same bytes."""
    assert encoded(PROMPT) == encoded(PROMPT)
    assert encoded(PROMPT) != encoded(PROMPT.replace("120", "1200"))


@pytest.mark.parametrize("data", [b"", b"\1\2", encoded("hello")[:-3], b"\7" + encoded("hello")[1:]])
def test_damaged_or_foreign_features_are_refused(data: bytes) -> None:
    with pytest.raises(UnknownFeatures):
        decode_features(data)
