"""The compiled kernel gives the estimates of NumPy for any text, head and ladder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router_model import compiled
from router_model.encoders import ngrams, packing, scanning
from router_model.encoders.ngrams import END, START, counts_of_part, ngram_features, part_read
from router_model.head import Head, load_named
from router_model.head_parts import Trunk
from router_model.predictor import Prediction, TierLength
from tests.router_model.native.kernels import needed_kernel

SCRIPTS = (
    "az", "AZ", "09", "٠٩", "०९", "АЯ", "ая", "את", "ءي", "ぁん", "一龥", "가힣", "ऀॿ",
    "\u0300\u036f", "😀🙏", "𝐀𝐳", "\ud800\udfff",
)  # fmt: skip
"""The first and the last character of some ranges."""
ODD = {
    "nothing": "",
    "null": "\0",
    "long number": "9" * 5_000,
    "borders of classes": " ".join(str(math.isqrt(1 << n) + more) for n in range(30) for more in (-1, 0, 1)),
    "digits that count": f"{'8' * 299} {'8' * 300} {'8' * 301} 0{'0' * 400}1",
    "read whole": "x" * (START + END),
    "read in part": "x" * (START + END + 1),
    "separators": "\u2028\u2029\u00a0\u3000\x85\x1c",
    "cases": "ǅ ﬁ ß İ ı Σς K Å",
    "code": "def f(x: int) -> list[str]:\n\treturn [f'{x!r}' for _ in range(10**9)]  # 0x1F, 1e-5, 3_000",
    "combining": "e\u0301" * 200,
}
CUES = " ".join(ngrams._CUES).split()


def span(ends: str) -> st.SearchStrategy[str]:
    """Words of the characters between two."""
    first, last = map(ord, ends)
    return st.text(st.characters(min_codepoint=first, max_codepoint=last, exclude_categories=()), max_size=9)


scripts = st.sampled_from(SCRIPTS).flatmap(span)
anything = st.text(st.characters(exclude_categories=()), max_size=300)
numbers = st.integers(0, 1 << 60).map(str) | st.floats(0, 1e300).map(str)
mixed = st.lists(scripts | numbers | st.sampled_from(CUES), max_size=20).map(" ".join)
texts = anything | mixed | st.builds(str.__mul__, mixed, st.integers(1, 200))


class Case(NamedTuple):
    """A ladder of a model of a head."""

    head: str
    model: str
    tiers: tuple[TierLength, ...]


def ladder(**thinking: int) -> tuple[TierLength, ...]:
    """Tiers by name; a name with an underscore in front is a rung without one."""
    return tuple(TierLength(None if name[0] == "_" else name, n, 512) for name, n in thinking.items())


CASES = {
    "prior": Case("general", "unheard-of", ladder(direct=0, _a=64, _b=256, short=512, _c=2048, long=16_384)),
    "prior of one tier": Case("general", "unheard-of", ladder(direct=0)),
    "known tiers": Case("tiny", "tiny", ladder(direct=0, short=24, long=320)),
    "rungs between them": Case("tiny", "tiny", ladder(direct=0, _a=7, short=24, _b=25, _c=200, long=320)),
    "other tiers": Case("tiny", "tiny", ladder(none=0, _a=7, some=30, much=320, too_much=5_000)),
    "wide trunk": Case("general", "gsm8k_qwen35_27b_forced", ladder(t128=128, t256=256, _a=300, t512=512)),
    "no difference held": Case("general", "gsm8k_r1_llama8b_forced", ladder(t256=256, t512=512, t1024=1024)),
}


load = cache(load_named)


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def heads(case: Case) -> tuple[Head, Head]:
    """The head with the kernel, and with NumPy alone."""
    loaded = load(case.head)
    return replace(loaded, kernel=needed_kernel()), replace(loaded, kernel=None)


def assert_same(found: Prediction, wanted: Prediction) -> None:
    """Equal to 1e-5; a 95th percentile is a whole number of tokens, to which it was rounded up."""
    assert found.correct == pytest.approx(wanted.correct, abs=1e-5)
    assert found.tokens == pytest.approx(wanted.tokens, rel=1e-5)
    assert found.p95 == pytest.approx(wanted.p95, abs=1)
    assert found.difficulty == 1 - found.correct[0]
    assert found.prior == wanted.prior
    assert [type(value) for value in found] == [type(value) for value in wanted]


@settings(deadline=None, max_examples=25)
@given(texts)
def test_same_estimates(case: Case, heads: tuple[Head, Head], text: str) -> None:
    """For text of many scripts, with surrogates and numbers, and text that is not read whole."""
    found, wanted = (head.predict(text, case.model, case.tiers) for head in heads)

    assert_same(found, wanted)
    assert found.abstains == wanted.abstains


@pytest.mark.parametrize("odd", ODD)
def test_odd_texts(case: Case, heads: tuple[Head, Head], odd: str) -> None:
    """Those where the two could most easily differ."""
    assert_same(*(head.predict(ODD[odd], case.model, case.tiers) for head in heads))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 300_000), min_size=1, max_size=20), st.integers(0, 9_000), mixed)
def test_any_ladder_of_the_prior(thinking: Sequence[int], answer: int, text: str) -> None:
    """Ladders of any length, in any order, and with any limit."""
    tiers = [TierLength(f"t{at}", budget, answer) for at, budget in enumerate(thinking)]
    head = load("general")

    assert_same(
        *(replace(head, kernel=kernel).predict(text, "x", tiers) for kernel in (needed_kernel(), None))
    )


@settings(deadline=None, max_examples=25)
@given(texts)
@example("a1" * 3_000)
def test_same_counts(text: str) -> None:
    """The counts, which stand beside an embedding, are those of `ngram_features`."""
    assert scanning.ngram_counts(text) == pytest.approx(ngram_features(text).dense, rel=1e-6)


@settings(deadline=None, max_examples=25)
@given(texts)
@example("a1" * 3_000)
@example("")
@example("".join(map(chr, range(0x4E00, 0x4E00 + 4_096))))
def test_same_packed_counts(text: str) -> None:
    """The buckets and how often each occurs are those of NumPy, and laid out alike."""
    part = part_read(text)
    packed = scanning.kernel_packed(part, len(text))
    assert packed is not None
    found, expected = packing.unpack_counts(packed), counts_of_part(part, len(text))

    assert np.array_equal(found.indices, expected.indices)
    assert np.array_equal(found.counts, expected.counts)
    assert found.dense == pytest.approx(expected.dense, rel=1e-6)
    assert packing.pack_counts(found) == packed


def test_counts_without_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy counts where there is no kernel."""
    monkeypatch.setattr(scanning, "kernel", lambda: None)

    assert np.array_equal(scanning.ngram_counts("12 apples"), ngram_features("12 apples").dense)
    assert packing.packed_part("12 apples", 9) == packing.pack_counts(counts_of_part("12 apples", 9))


def test_nothing_remains_of_a_prompt(case: Case, heads: tuple[Head, Head]) -> None:
    """An estimate does not depend on the prompts before it, nor on other threads."""
    prompts = [*ODD.values(), "How many apples?", "Prove it."]
    alone = [heads[0].predict(prompt, case.model, case.tiers) for prompt in prompts]

    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(heads[0].predict, prompt, case.model, case.tiers) for prompt in prompts * 20]

    assert [future.result() for future in asked] == alone * 20


def shortened(trunk: Trunk) -> Trunk:
    """A damaged one."""
    return replace(trunk, rarity=trunk.rarity[:-1])


@pytest.mark.parametrize(
    "change",
    [
        shortened,
        lambda trunk: replace(trunk, plane=np.zeros((1, ngrams.SIZE), np.float32)),
        lambda trunk: replace(trunk, examples=trunk.examples[:, :-1]),
    ],
)
def test_unfit_trunk_is_left_to_numpy(change: Callable[[Trunk], Trunk]) -> None:
    """The kernel reads no array of another size than it expects, and no plane."""
    head, case = load("tiny"), CASES["known tiers"]
    mapping = head._mapping(case.model, case.tiers)

    assert compiled.fits(head.trunk, mapping)
    assert not compiled.fits(change(head.trunk), mapping)


def test_unfit_mapping_is_left_to_numpy() -> None:
    """As above."""
    head, case = load("tiny"), CASES["known tiers"]
    mapping = head._mapping(case.model, case.tiers)

    assert not compiled.fits(head.trunk, replace(mapping, spread=mapping.spread[:0]))


def test_unfit_prior_is_left_to_numpy() -> None:
    """As above."""
    head, case = load("general"), CASES["prior"]
    rungs = head._mapping(case.model, case.tiers)
    wider = replace(rungs, prior=replace(head.prior, low=np.zeros(4)))

    assert compiled.prior_estimator(needed_kernel(), rungs)
    assert compiled.prior_estimator(needed_kernel(), wider) is None
