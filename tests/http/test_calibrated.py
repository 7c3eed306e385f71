"""`thinkmeter calibrate` on a few hundred outcomes, and the gateway with the calibrated head."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli.main import cli
from router_model.evaluation import metrics
from router_model.head import ARTIFACTS, Head, load_named
from router_model.predictor import TierLength
from router_model.training.outcomes import OutcomeTable, read_table
from tests.fakes.backend import Backend
from tests.http.raw_http import ask
from tests.router_model.synthetic import gain_over_mix
from tests.serving import TIERS, configuration, serving

pytest.importorskip("scipy")

MEASURED = Path(__file__).parents[2] / "examples/tiny_reasoner/measured/outcomes.jsonl.gz"
LENGTHS = [TierLength(name, tier["thinking"], tier["answer"]) for name, tier in TIERS.items()]
KNOWN = 300


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The head `general`, calibrated for the model `mine` on 300 outcomes of the tiny reasoner."""
    folder = tmp_path_factory.mktemp("calibrated")
    with gzip.open(MEASURED, "rt") as lines:
        (folder / "some.jsonl").write_text(
            "".join(line for _, line in zip(range(KNOWN), lines, strict=False))
        )
    command = ["calibrate", "general", str(folder / "some.jsonl"), "--model-set", "mine"]
    command += ["--tiers", ",".join(TIERS), "--out", str(folder / "head")]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    assert "knows mine (direct, short, medium, long)" in " ".join(result.stderr.split())
    return folder / "head"


@pytest.fixture(scope="module")
def rest() -> OutcomeTable:
    """The outcomes that were not used to calibrate the head."""
    table = read_table(MEASURED, tuple(TIERS))
    return table.take(np.arange(KNOWN, len(table)))


def predicted(head: Head, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """P(right) and tokens of every prompt and tier, each `[N, T]`."""
    predictions = [head.predict(prompt, "mine", LENGTHS) for prompt in prompts]
    return np.array([p.correct for p in predictions]), np.array([p.tokens for p in predictions])


def errors(correct: np.ndarray, table: OutcomeTable) -> list[float]:
    """Expected calibration error of each tier."""
    return [metrics.calibration_error(correct[:, t], table.correct[:, t]) for t in range(len(table.tiers))]


def test_better_than_before(calibrated: Path, rest: OutcomeTable) -> None:
    """On unseen questions, its estimates are far better than those of `general`, and so are its decisions."""
    tuned, plain = Head.load(calibrated), load_named("general")
    after, before = predicted(tuned, rest.prompts), predicted(plain, rest.prompts)

    assert not tuned.trained_on(rest.prompts).any()
    assert max(errors(after[0], rest)) < 0.12 < min(errors(before[0], rest)[:2])
    assert gain_over_mix(*after, rest) > 0.02 + max(gain_over_mix(*before, rest), 0)
    assert np.abs(after[1].mean(axis=0) / rest.tokens.mean(axis=0) - 1).max() < 0.15


async def test_served(calibrated: Path, rest: OutcomeTable, backend: Backend) -> None:
    """The gateway decides by the calibrated estimates: the higher the price, the shorter the tiers."""
    models = {"mine": configuration(backend.url)["models"]["tiny"] | {"served_name": "tiny"}}
    chosen = {}
    for price in (0.1, 2.0, 50.0):
        settings = configuration(backend.url) | {"models": models, "head": str(calibrated), "price": price}
        async with serving(settings) as running:
            decisions = []
            for prompt in rest.prompts[:40]:
                body = {"model": "mine", "messages": [{"role": "user", "content": prompt}]}
                decisions.append((await ask(running.http, running.url, "/v1/route", body)).json["decision"])
        chosen[price] = {decision["tier"] for decision in decisions}
        wanted = [
            Head.load(calibrated).predict(prompt, "mine", LENGTHS).correct for prompt in rest.prompts[:2]
        ]
        assert [list(decision["correct"].values()) for decision in decisions[:2]] == [
            pytest.approx(correct) for correct in wanted
        ]

    assert chosen[50.0] == {"direct"}
    assert "long" in chosen[0.1]
    assert len(chosen[2.0]) > 1


def test_other_models_keep_their_curves(calibrated: Path, tmp_path: Path) -> None:
    """Estimates for a model that was not calibrated do not change, and `check` says where they come from."""
    head, before = Head.load(calibrated), load_named("general")
    prompt = "What is 3 plus 4, times 2?"
    assert head.predict(prompt, "other", LENGTHS).correct == before.predict(prompt, "other", LENGTHS).correct

    model = {"family": "qwen3", "replicas": [{"url": "http://127.0.0.1:1"}]}
    path = tmp_path / "gateway.yaml"
    path.write_text(yaml.safe_dump({"models": {"mine": model, "other": model}, "head": str(calibrated)}))
    report = " ".join(CliRunner().invoke(cli, ["check", str(path)]).stdout.split())
    assert "never saw the model other" in report
    assert "decided by the prior" in report
    assert "never saw the model mine" not in report


def test_adding_a_model_to_a_head(calibrated: Path, tmp_path: Path) -> None:
    """`--out` may be the calibrated head itself, and the manifest lists the data of both calibrations."""
    table = tmp_path / "more.jsonl"
    table.write_text((calibrated.parent / "some.jsonl").read_text())
    command = ["calibrate", str(calibrated), str(table), "--tiers", "direct,long", "--out", str(calibrated)]

    assert CliRunner().invoke(cli, command).exit_code == 0
    manifest = json.loads((calibrated / "manifest.json").read_text())
    shipped = json.loads((ARTIFACTS / "general/manifest.json").read_text())
    assert [model_set["name"] for model_set in manifest["sets"]][-2:] == ["mine", "more"]
    assert manifest["sets"][-1]["tiers"] == ["direct", "long"]
    assert manifest["data"].keys() - shipped["data"].keys() == {"mine", "more"}
    assert manifest["metrics"]["mine"]["deviance"] < manifest["metrics"]["mine"]["deviance_of_constant"]


def test_mistakes(tmp_path: Path) -> None:
    """Too few outcomes, an unknown head or a broken line give an error message, and nothing is written."""
    few = tmp_path / "few.jsonl"
    few.write_text('{"prompt": "a", "tiers": {"x": {"correct": 1, "tokens": 2}}}\n')
    broken = tmp_path / "broken.jsonl"
    broken.write_text(few.read_text() + "[]\n")
    for head, data, message in (
        ("general", few, "1 prompts are too few"),
        ("nowhere", few, "nowhere"),
        ("general", broken, "broken.jsonl:2:"),
        ("general", tmp_path / "no.jsonl", "no.jsonl"),
    ):
        result = CliRunner().invoke(cli, ["calibrate", head, str(data), "--out", str(tmp_path / "out")])
        assert result.exit_code == 2
        assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


async def test_evidence_shows(calibrated: Path, backend: Backend) -> None:
    """Metrics, console and the reason of a decision say which model the head was never taught."""
    model = configuration(backend.url)["models"]["tiny"] | {"served_name": "tiny"}
    settings = configuration(backend.url) | {
        "models": {"mine": model, "other": model},
        "head": str(calibrated),
    }
    async with serving(settings) as running:
        body = {"model": "other", "messages": [{"role": "user", "content": "What is 3 plus 4?"}]}
        decision = (await ask(running.http, running.url, "/v1/route", body)).json["decision"]
        async with running.http.get(f"{running.url}/metrics") as response:
            metrics_page = await response.text()
        evidence = running.gateway.console.snapshot()["evidence"]

    assert decision["reason"] == "prior"
    assert 'thinkmeter_prior_share{model="other"} 1.0' in metrics_page
    assert 'thinkmeter_prior_share{model="mine"} 0.0' in metrics_page
    assert evidence["other"] == {"stage": "prior", "prompts": 0, "prior_share": 1.0}
    assert evidence["mine"]["stage"] == "measured"
    assert evidence["mine"]["prompts"] == KNOWN
