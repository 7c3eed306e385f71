"""The head from training to serving: it learns what can be learnt, survives the disk, knows its limits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn")

from router_model import artifact
from router_model.artifact import ArtifactError
from router_model.evaluation.ibpo import fine_tuned, priced, published
from router_model.evaluation.methods import Estimates
from router_model.evaluation.metrics import calibration_error
from router_model.evaluation.ours import FittedHead, FittedPolicy, HeadMethod
from router_model.head import ARTIFACTS, Head, load_named
from router_model.predictor import TierLength
from router_model.training import tier_curves, train
from router_model.training.calibrate import calibrate, inputs_of
from router_model.training.outcomes import OutcomeError, OutcomeTable
from router_model.training.train import Settings, Trained
from tests.router_model.synthetic import TIERS, gain_over_mix, synthetic

ASKED = [TierLength("direct", 0, 50), TierLength("short", 100, 50), TierLength("long", 600, 50)]
EASY, HARD = "river stone: what is 11 + 12?", "river stone: what is 11 + 12" + " + 13" * 10 + "?"


@pytest.fixture(scope="module")
def table() -> OutcomeTable:
    """A learnable table."""
    return synthetic(500, 1, learnable=True)


@pytest.fixture(scope="module")
def trained(table: OutcomeTable) -> Trained:
    """A head fitted to it."""
    return train.fit([table], Settings(members=1))


@pytest.fixture(scope="module")
def saved(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on disk."""
    folder = tmp_path_factory.mktemp("head") / "made"
    train.save(trained.head, folder)
    return folder


def estimates(trained: Trained, table: OutcomeTable) -> Estimates:
    """The head's estimates for another table of the same kind."""
    return FittedHead(trained.head, trained.plain["made"]).estimate(table)


def test_beats_the_mix_where_there_is_signal(trained: Trained) -> None:
    """On new prompts the decisions are at least 8 points better than the best mix of fixed tiers."""
    fresh = synthetic(600, 2, learnable=True)

    assert gain_over_mix(*estimates(trained, fresh), fresh) > 0.08


def test_loses_nothing_where_there_is_none() -> None:
    """Without signal all prompts look alike, and the decisions are as good as the mix."""
    blind = train.fit([synthetic(500, 3, learnable=False)], Settings(members=1))
    fresh = synthetic(2000, 4, learnable=False)

    found = estimates(blind, fresh).correct
    assert (found[:, 2] - found[:, 0]).std() < 0.05
    assert gain_over_mix(*estimates(blind, fresh), fresh) > -0.01


def test_corrections_improve_calibration(trained: Trained) -> None:
    """Overconfident predictions become better calibrated; what is served is calibrated on new prompts."""
    fresh = synthetic(1500, 5, learnable=True)
    view = trained.views[0]
    raw = 3 * view.linear
    repaired = tier_curves.apply(tier_curves.correct_by(raw, view.table), raw, view.table)[0]
    distorted = 1 / (1 + np.exp(-np.clip(raw[:, :3], -30, 30)))
    served = estimates(trained, fresh).correct

    for tier in range(3):
        truth = view.table.correct[:, tier]
        assert calibration_error(repaired[:, tier], truth) < calibration_error(distorted[:, tier], truth)
        assert calibration_error(served[:, tier], fresh.correct[:, tier]) < 0.06


def test_survives_the_disk(trained: Trained, saved: Path) -> None:
    """A loaded head answers as the one in memory and knows by hash what it was trained on."""
    head = Head.load(saved)
    for prompt in (EASY, HARD):
        found, before = head.predict(prompt, "made", ASKED), trained.head.predict(prompt, "made", ASKED)
        assert found.correct == pytest.approx(before.correct, abs=1e-5)
        assert found.tokens == pytest.approx(before.tokens, rel=1e-5)
    assert head.version.startswith("head-")
    assert all(path.suffix in {".json", ".npz"} for path in saved.iterdir())
    assert head.trained_on([trained.views[0].table.prompts[0].upper(), HARD]).tolist() == [True, False]


def test_same_seed_same_bytes(table: OutcomeTable, tmp_path: Path) -> None:
    """Training is deterministic down to the digest."""
    small = table.take(np.arange(120))
    one, two = (train.train([small], tmp_path / name, 3, ["m"]) for name in ("a", "b"))

    assert one.digest == two.digest
    assert set(one.sets) == {"m"}


def test_predictions_make_sense(saved: Path) -> None:
    """Longer sums are harder and longer to answer; reserves exceed means; nothing exceeds the tier."""
    head = Head.load(saved)
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
def test_any_prompt(saved: Path, prompt: str) -> None:
    """Whatever the prompt, estimates are finite and in range."""
    found = Head.load(saved).predict(prompt, "made", ASKED)

    assert all(0 <= p <= 1 for p in found.correct)
    assert all(0 < t < 1e6 for t in found.tokens)
    assert 0 <= found.difficulty <= 1


def test_abstains_from_the_unfamiliar(saved: Path) -> None:
    """Far from the training data it says so and answers its averages, the same for all such prompts."""
    head = Head.load(saved)
    poem = head.predict("Übersetze bitte: Wer reitet so spät durch Nacht und Wind?", "made", ASKED)
    code = head.predict("SELECT * FROM users WHERE id IN (SELECT owner FROM pets)", "made", ASKED)

    assert poem.abstains
    assert code.abstains
    assert poem == code
    known = [head.predict(p, "made", ASKED).abstains for p in synthetic(300, 6, learnable=True).prompts]
    assert np.mean(known) < 0.05


def test_known_tiers_go_by_name_in_any_order(saved: Path) -> None:
    """A model of another name with the same tier names uses their curves."""
    head = Head.load(saved)
    turned = head.predict(HARD, "unheard-of", ASKED[::-1])

    assert turned.correct == head.predict(HARD, "made", ASKED).correct[::-1]


def test_other_lengths_are_interpolated(trained: Trained) -> None:
    """Unknown tiers lie between the measured ones by length, never fall with it, and respect their room."""
    curves = replace(trained.head.sets["made"], lengths={"direct": 0.0, "short": 100.0, "long": 600.0})
    head = replace(trained.head, sets={"made": curves})
    lengths = [TierLength(f"t{n}", n, 50) for n in (0, 50, 100, 300, 600, 2400, 9600, 40_000)]
    found, known = head.predict(HARD, "x", lengths), head.predict(HARD, "made", ASKED)

    assert list(found.correct) == sorted(found.correct)
    assert list(found.tokens) == sorted(found.tokens)
    assert found.correct[2] == pytest.approx(max(known.correct[:2]))
    assert found.correct[-1] == found.correct[-2] <= 1
    assert found.tokens[0] <= 50


def test_price_table(saved: Path) -> None:
    """λ*(B): budgets rise, prices fall; spending at a price on the sample stays near the budget."""
    table = Head.load(saved).price_table("made", ASKED)
    assert table is not None
    budgets, prices = table.budgets, table.prices

    assert (np.diff(budgets) > 0).all()
    assert (np.diff(prices) <= 0).all()
    assert prices[-1] > 0
    assert 5 <= budgets[0] < budgets[-1] < 600


def test_calibrates_a_new_model(saved: Path) -> None:
    """From 150 outcomes the tiers of another model are learnt with the trunk frozen."""
    head = Head.load(saved)
    other = replace(synthetic(150, 8, learnable=True, name="new"), tiers=("a", "b", "c"))
    tuned = calibrate(head, other)
    fresh = synthetic(600, 9, learnable=True)
    seen = inputs_of(tuned, fresh).astype(np.float32)

    assert gain_over_mix(*tuned.sets["new"].outcomes(seen), fresh) > 0.06
    assert tuned.trunk is head.trunk
    with pytest.raises(OutcomeError, match="too few"):
        calibrate(head, other.take(np.arange(5)))


def test_several_tables_with_gaps(table: OutcomeTable) -> None:
    """Tables are trained on at once, share prompts, and may lack cells."""
    samples = np.where(np.arange(1500).reshape(500, 3) % 7 == 0, 0, table.samples)
    gaps = replace(
        table,
        name="gaps",
        samples=samples,
        correct=np.where(samples > 0, table.correct, np.nan),
        tokens=np.where(samples > 0, table.tokens, np.nan),
    )
    head = train.fit([table.take(np.arange(200)), gaps.take(np.arange(100, 400))], Settings(members=1)).head
    found = head.predict(HARD, "gaps", ASKED)

    assert set(head.sets) == {"made", "gaps"}
    assert np.isfinite([*found.correct, *found.tokens, *found.p95]).all()


def test_refuses_tables_it_cannot_use(table: OutcomeTable) -> None:
    """No tables, two of one name, and too few prompts."""
    for tables, says in (
        ([], "no tables"),
        ([table, table], "two tables"),
        ([table.take([0, 1])], "too few"),
    ):
        with pytest.raises(OutcomeError, match=says):
            train.fit(tables, Settings())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"feature_version": 0}, "features of version 0"),
        ({"format": 99}, "format 99"),
        ({"arrays": {"file": "../x.npz", "sha256": ""}}, "outside its directory"),
        ({"arrays": {"file": "gone.npz", "sha256": ""}}, "gone.npz is missing"),
        ({"arrays": None}, "not a manifest"),
    ],
)
def test_refuses_other_artefacts(saved: Path, tmp_path: Path, change: dict, says: str) -> None:
    """Another feature version, another format, and manifests that point elsewhere."""
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((tmp_path / artifact.MANIFEST).read_text())
    (tmp_path / artifact.MANIFEST).write_text(json.dumps(manifest | change))

    with pytest.raises(ArtifactError, match=says):
        Head.load(tmp_path)


def test_refuses_damage(saved: Path, tmp_path: Path) -> None:
    """A flipped byte and an empty folder."""
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (arrays,) = tmp_path.glob("*.npz")
    arrays.write_bytes(arrays.read_bytes()[:-1] + b"?")

    with pytest.raises(ArtifactError, match="damaged"):
        Head.load(tmp_path)
    with pytest.raises(ArtifactError, match="no head here"):
        Head.load(tmp_path / "nothing")


def test_replacing_leaves_one_head(trained: Trained, tmp_path: Path) -> None:
    """A second write replaces the first; nothing temporary or old stays behind."""
    first = train.save(trained.head, tmp_path)
    second = train.save(replace(trained.head, sample=trained.head.sample[:10]), tmp_path)

    assert first.digest != second.digest
    assert len(list(tmp_path.iterdir())) == 2
    assert Head.load(tmp_path).digest == second.digest


def test_policies_and_joint_objective(trained: Trained) -> None:
    """Repaired IBPO and the fine-tuned head beat the mix; the published form chooses one tier a prompt."""
    fresh = synthetic(600, 10, learnable=True)
    joint = fine_tuned(trained, 0)
    tuned = FittedHead(replace(trained.head, sets={"made": joint}), joint).estimate(fresh)
    policy = FittedPolicy(trained.head, priced(trained, 0))
    prices = [*np.geomspace(10, 1e-3, 60)]
    spent = [policy.choose(fresh, price) for price in prices]
    tokens = [float((chosen * fresh.tokens).sum(axis=1).mean()) for chosen in spent]
    right = [float((chosen * fresh.correct).sum(axis=1).mean()) for chosen in spent]

    assert gain_over_mix(*tuned, fresh) > 0.08
    fixed = np.interp(tokens, fresh.tokens.mean(axis=0), fresh.correct.mean(axis=0))
    assert max(np.array(right) - fixed) > 0.06
    hard = FittedPolicy(trained.head, published(trained, 0)).choose(fresh, 0.5)
    assert hard.sum(axis=1).tolist() == [1.0] * len(fresh)


def test_method_seam(table: OutcomeTable) -> None:
    """The shipped method fits and estimates tiers by name, also a selection of them."""
    fitted = HeadMethod().fit(table.take(np.arange(200)), 0)
    some = table.take(np.arange(200, 260)).select(TIERS[::2])

    assert fitted.estimate(some).correct.shape == (60, 2)
    assert fitted.uncalibrated(some).tokens.shape == (60, 2)


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
