"""Features of any text are finite, bounded, deterministic and informative."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from router_model.encoders.base import Features
from router_model.encoders.ngrams import COUNTS, DENSE, END, SIZE, START, ngram_features, ngram_matrix

texts = st.text(st.characters(exclude_categories=())) | st.text("ab 12.,+=\\$\n", max_size=300)


def same(one: Features, two: Features) -> bool:
    """Whether two prompts look exactly alike."""
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@settings(deadline=None)
@given(texts)
def test_well_formed(text: str) -> None:
    """Ascending buckets, positive values of length 1 in each block, finite counts; for surrogates too."""
    found = ngram_features(text)

    assert found.indices.dtype == np.int32
    assert (np.diff(found.indices) > 0).all()
    assert not len(found.indices) or (found.indices[0] >= 0 and found.indices[-1] < SIZE)
    assert (found.values > 0).all()
    for block in (found.values[found.indices < SIZE // 2], found.values[found.indices >= SIZE // 2]):
        assert not len(block) or abs(float(block @ block) - 1) < 1e-4
    assert found.dense.shape == (DENSE,) == (len(COUNTS),)
    assert np.isfinite(found.dense).all()
    assert same(found, ngram_features(text))


def test_pinned() -> None:
    """The features of a fixed prompt never change without FEATURE_VERSION: a trained head depends on them."""
    found = ngram_features("Let f(x) = (4x + 9) mod 7. Größe 数学?")

    assert len(found.indices) == PINNED[0]
    assert int(found.indices.sum()) == PINNED[1]
    assert round(float(found.values.sum()), 3) == PINNED[2]
    assert round(float(found.dense.sum()), 3) == PINNED[3]


PINNED = (43, 986995, 8.733, 37.659)


@settings(deadline=None)
@given(st.integers(0, 3), st.integers(1, 400))
def test_bounded(kind: int, length: int) -> None:
    """Of a long prompt only the two ends are read, so no prompt has more n-grams than fit there."""
    text = ("x1 ", "漢", "word ", "9")[kind] * (length * 300)
    found = ngram_features(text)

    assert len(found.indices) <= 3 * (START + END + 8)
    if len(text) > START + END:
        other = ngram_features(text[:START] + "?" * (len(text) - START - END) + text[-END:])
        assert np.array_equal(found.indices, other.indices)


def test_numbers_count_by_size() -> None:
    """Numbers of about the same size look alike; a much larger one does not."""
    near, also, far = (set(ngram_features(f"Apply f {n} times.").indices.tolist()) for n in (56, 57, 9000))

    assert near == also
    assert near != far


def test_case_does_not_matter_to_words() -> None:
    """Words are folded; the share of capitals is a count."""
    one, two = ngram_features("What is the SUM?"), ngram_features("what is the sum?")

    assert np.array_equal(one.indices, two.indices)
    assert not np.array_equal(one.dense, two.dense)


def test_matrix() -> None:
    """The rows of the matrix are the single prompts, also for no prompts."""
    prompts = ["one", "", "two words"]
    matrix = ngram_matrix(prompts)

    for at, prompt in enumerate(prompts):
        row = slice(matrix.indptr[at], matrix.indptr[at + 1])
        assert same(
            Features(matrix.indices[row], matrix.values[row], matrix.dense[at]), ngram_features(prompt)
        )
    assert ngram_matrix([]).dense.shape == (0, DENSE)
