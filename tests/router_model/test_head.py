"""A trained head survives the disk, predicts sensibly, and knows the limits of its knowledge."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn")

from router_model import artifact
from router_model.encoders.ngrams import DENSE
from router_model.head import ARTIFACTS, Head, load_named
from router_model.head_parts import unknown_share
from router_model.predictor import Evidence, TierLength
from router_model.training.train import Trained
from tests.router_model.native.kernels import needed_kernel
from tests.router_model.synthetic import synthetic

ASKED = [TierLength("direct", 0, 50), TierLength("short", 100, 50), TierLength("long", 600, 50)]
EASY = "river stone cloud table 40: what is 11 + 72?"
HARD = "river stone cloud table 41: what is 11 + 72 + 35 + 90 + 48 + 63 + 27 + 84 + 56 + 19 + 71 + 33?"


@pytest.fixture(scope="module", params=["compiled", "numpy"])
def head(saved: Path, request: pytest.FixtureRequest) -> Head:
    """The saved head, with the kernel and without."""
    if request.param == "numpy":
        return replace(Head.load(saved), kernel=None)
    return replace(Head.load(saved), kernel=needed_kernel())


def test_survives_the_disk(trained: Trained, saved: Path, head: Head) -> None:
    """A loaded head predicts like the one in memory and recognises its training prompts by hash."""
    for prompt in (EASY, HARD):
        found, before = head.predict(prompt, "made", ASKED), trained.head.predict(prompt, "made", ASKED)
        assert found.correct == pytest.approx(before.correct, abs=1e-5)
        assert found.tokens == pytest.approx(before.tokens, rel=1e-5)
    assert head.version.startswith("head-")
    assert all(path.suffix in {".json", ".npz"} for path in saved.iterdir())
    assert head.trained_on([trained.views[0].table.prompts[0].upper(), HARD]).tolist() == [True, False]


def test_predictions_make_sense(head: Head) -> None:
    """Longer sums are harder and longer to answer; reserves exceed means; nothing exceeds the tier."""
    easy, hard = head.predict(EASY, "made", ASKED), head.predict(HARD, "made", ASKED)

    assert easy.difficulty < 0.4 < 0.6 < hard.difficulty
    assert easy.tokens[2] < hard.tokens[2]
    assert hard.correct[2] - hard.correct[0] > easy.correct[2] - easy.correct[0]
    for found in (easy, hard):
        assert found.difficulty == 1 - found.correct[0]
        assert not found.abstains
        assert all(p95 <= tier.thinking + tier.answer for p95, tier in zip(found.p95, ASKED, strict=True))


@settings(deadline=None, max_examples=60)
@given(prompt=st.text(st.characters(exclude_categories=())) | st.sampled_from(["9" * 50_000, "\n" * 99]))
def test_any_prompt(head: Head, prompt: str) -> None:
    """Whatever the prompt, estimates are finite and in range."""
    found = head.predict(prompt, "made", ASKED)

    assert all(0 <= p <= 1 for p in found.correct)
    assert all(0 < t < 1e6 for t in found.tokens)
    assert 0 <= found.difficulty <= 1


def test_abstains_from_the_unfamiliar(head: Head) -> None:
    """Far from the training data the head abstains: only the length of a prompt then tells it from others."""
    poem = head.predict("Wer reitet so spät durch Nacht und Wind? Es ist der Vater", "made", ASKED)
    code = head.predict("SELECT * FROM users WHERE id IN (SELECT owner FROM pets);", "made", ASKED)
    essay = head.predict("Write about the history of trade between nations. " * 30, "made", ASKED)

    assert poem.abstains
    assert code.abstains
    assert essay.abstains
    assert poem.tokens == pytest.approx(code.tokens, rel=1e-3)  # the same length
    assert essay.tokens[2] > 1.5 * poem.tokens[2]  # longer sums have longer answers
    known = [head.predict(p, "made", ASKED).abstains for p in synthetic(300, 6, learnable=True).prompts]
    assert np.mean(known) < 0.1


def test_unknown_prompts_stay_near_the_average(head: Head) -> None:
    """The more unknown a prompt, the nearer P(right) is to the average, and the tokens to those by length."""
    curves = head.sets["made"]
    inputs = np.repeat(head.see([HARD])[0], 5, axis=0)
    correct, tokens = curves.outcomes(inputs, np.linspace(0, 1, 5, dtype=np.float32))
    alone = np.exp(curves.by_length[0] + inputs[0, -DENSE] * curves.by_length[1])

    away = np.abs(correct - curves.average)
    assert (np.diff(away, axis=0) <= 1e-6).all()
    assert away[-1] == pytest.approx(away[0] / 4, abs=1e-5)
    assert tokens[-1] == pytest.approx(np.clip(alone, curves.low, curves.high), rel=1e-4)
    assert (tokens[0], correct[0]) == (
        pytest.approx(curves.outcomes(inputs[0])[1]),
        pytest.approx(curves.outcomes(inputs[0])[0]),
    )


@given(st.floats(0, 100), st.floats(0, 100))
def test_unknown_share(one: float, other: float) -> None:
    """The share is 0 up to the threshold, stays within 0 and 1, and never falls with strangeness."""
    low, high = sorted((one, other))

    assert 0 <= unknown_share(low) <= unknown_share(high) <= 1
    assert (unknown_share(low) > 0) == (low > 1)


def test_known_tiers_go_by_name_in_any_order(head: Head) -> None:
    """A model that was measured uses its curves, whatever the order of its tiers."""
    turned = head.predict(HARD, "made", ASKED[::-1])

    assert turned.correct == head.predict(HARD, "made", ASKED).correct[::-1]
    assert not turned.prior


def test_prior_decides_for_other_models(head: Head) -> None:
    """A model of another name never uses these curves, even if its tiers have the same names."""
    found = head.predict(HARD, "unheard-of", ASKED)

    assert found.prior
    assert found == replace(load_named("general"), kernel=head.kernel).predict(HARD, "unheard-of", ASKED)


def test_evidence(head: Head) -> None:
    """The head says whether a model's estimates rest on the prior, on own outcomes, or on both."""
    few = {
        **head.manifest["metrics"],
        "made": head.manifest["metrics"]["made"] | {"prior": {"correct": 500.0}},
    }
    mixed = replace(head, manifest={**head.manifest, "metrics": few})

    assert head.evidence("made", ASKED) == Evidence("measured", 500, 0.0)
    assert head.caveat("made", ASKED) is None
    assert mixed.evidence("made", ASKED) == Evidence("mixed", 500, 0.5)
    assert "weighs 50%" in mixed.caveat("made", ASKED)
    assert head.evidence("other", ASKED) == Evidence("prior", 0, 1.0)
    assert "decided by the prior" in head.caveat("other", ASKED)


def test_other_lengths_are_interpolated(trained: Trained) -> None:
    """Unknown tiers are interpolated by length, never fall with it, and respect their token limits."""
    curves = replace(trained.head.sets["made"], lengths={"direct": 0.0, "short": 100.0, "long": 600.0})
    head = replace(trained.head, sets={"made": curves})
    lengths = [TierLength(f"t{n}", n, 50) for n in (0, 50, 100, 300, 600, 2400, 9600, 40_000)]
    found, known = head.predict(HARD, "made", lengths), head.predict(HARD, "made", ASKED)

    assert list(found.correct) == sorted(found.correct)
    assert list(found.tokens) == sorted(found.tokens)
    assert found.correct[2] == pytest.approx(max(known.correct[:2]))
    assert found.correct[-1] == found.correct[-2] <= 1
    assert found.tokens[0] <= 50


def ladder(*between: int) -> list[TierLength]:
    """The usual tiers, with rungs of so many thinking tokens between them."""
    return sorted(ASKED + [TierLength(None, n, 50) for n in between], key=lambda tier: tier.thinking)


def test_rungs_between_known_tiers(head: Head) -> None:
    """Known tiers keep their exact estimates, and a rung lies between its two neighbours, in order."""
    rungs = ladder(10, 30, 250, 251, 400)
    prompts = synthetic(60, 8, learnable=True).prompts
    whole = [head.predict(prompt, "made", ASKED) for prompt in prompts]
    finer = [head.predict(prompt, "made", rungs) for prompt in prompts]
    at = [index for index, rung in enumerate(rungs) if rung.name]

    for few, many in zip(whole, finer, strict=True):
        for before, after in ((few.correct, many.correct), (few.tokens, many.tokens)):
            assert tuple(after[k] for k in at) == before
            for low, high in pairwise(at):
                span = list(after[low : high + 1])
                assert span in (sorted(span), sorted(span, reverse=True))
        assert tuple(many.p95[k] for k in at) == few.p95


def test_rungs_are_linear_in_the_logarithm(head: Head) -> None:
    """Half way in ln(1 + thinking), P(right) is the arithmetic mean and the tokens are the geometric one."""
    asked = [TierLength("short", 9, 500), TierLength(None, 99, 500), TierLength("long", 999, 500)]
    found = head.predict(HARD, "made", asked)

    assert found.correct[1] == pytest.approx((found.correct[0] + found.correct[2]) / 2)
    assert found.tokens[1] == pytest.approx((found.tokens[0] * found.tokens[2]) ** 0.5)


def test_a_quarter_of_the_shortest_tier_gains_nothing(head: Head) -> None:
    """Up to a quarter of the shortest thinking tier P(right) stays that of no thinking, but tokens rise."""
    asked = [ASKED[0], *(TierLength(None, n, 500) for n in (9, 24, 50)), TierLength("short", 99, 500)]
    found = head.predict(HARD, "made", asked)

    assert found.correct[0] == found.correct[1] == found.correct[2] != found.correct[3]
    assert list(found.tokens) == sorted(set(found.tokens))


def test_equal_tiers_have_equal_rungs_between_them(trained: Trained) -> None:
    """Where a longer tier gains nothing, no rung below it does, not even in the last digit."""
    curves = trained.head.sets["made"]
    count = len(curves.tiers)
    weights, bias, offset = curves.weights.copy(), curves.bias.copy(), curves.offset.copy()
    weights[:, 1:count], bias[1:count], offset[1:] = weights[:, :1], bias[0], offset[0]
    flat = replace(curves, weights=weights, bias=bias, offset=offset)
    head = replace(trained.head, sets={"made": flat})

    assert len(set(head.predict(HARD, "made", ladder(7, 33, 333)).correct)) == 1


def test_other_measured_tiers_are_used_if_their_lengths_fit(trained: Trained) -> None:
    """A rung as long as another measured tier has its estimates, if the lengths of the named tiers fit."""
    curves = trained.head.sets["made"]
    asked = [ASKED[0], TierLength(None, 100, 50), ASKED[2]]
    known = trained.head.predict(HARD, "made", ASKED)

    def middle(lengths: dict[str, float]) -> float:
        head = replace(trained.head, sets={"made": replace(curves, lengths=lengths)})
        return head.predict(HARD, "made", asked).correct[1]

    assert middle({"direct": 0.0, "short": 100.0, "long": 600.0}) == pytest.approx(known.correct[1])
    assert middle({"direct": 0.0, "short": 100.0, "long": 500.0}) == known.correct[0]
    assert middle({}) == known.correct[0]


def test_price_table(head: Head) -> None:
    """λ*(B): budgets rise, prices fall; spending at a price on the sample stays near the budget."""
    table = head.price_table("made", ASKED)
    assert table is not None
    budgets, prices = table.budgets, table.prices

    assert (np.diff(budgets) > 0).all()
    assert (np.diff(prices) <= 0).all()
    assert prices[-1] > 0
    assert 5 <= budgets[0] < budgets[-1] < 600


@pytest.mark.parametrize("name", ["general", "tiny"])
def test_shipped_heads(name: str) -> None:
    """The shipped heads load, are small, and answer for the gateway's usual tiers."""
    head = load_named(name)
    usual = [TierLength("direct", 0, 1024), TierLength("short", 512, 1024), TierLength("long", 8192, 2048)]
    found = head.predict("If 3x + 5 = 20, what is x?", "some-model", usual)

    assert sum(path.stat().st_size for path in (ARTIFACTS / name).iterdir()) <= artifact.LARGEST
    assert len(found.correct) == 3
    assert list(found.tokens) == sorted(found.tokens)
    assert (np.diff(head.price_table("some-model", usual).budgets) > 0).all()
