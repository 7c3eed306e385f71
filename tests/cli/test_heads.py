"""The commands that make and measure heads: their JSON, and their errors."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gateway.cli.main import cli
from router_model.head import Head
from tests.router_model import made

pytest.importorskip("sklearn")

POINT = {"extra_budget", "tokens", "accuracy", "mix", "oracle"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outcome table in a file."""
    return made.write(made.table(120), tmp_path_factory.mktemp("data") / "made.jsonl")


@pytest.fixture(scope="module")
def head(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head that the command trained on this table."""
    out = tmp_path_factory.mktemp("heads") / "mine"
    found = CliRunner().invoke(cli, ["train", str(data), "--out", str(out)])
    assert found.exit_code == 0, found.output
    return out


def evaluated(*arguments: str | Path) -> dict:
    """The JSON object that `evaluate` prints on standard output, where it must be alone."""
    found = CliRunner().invoke(cli, ["evaluate", *map(str, arguments), "--json"])
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


def test_cross_validation(data: Path) -> None:
    """`--folds` takes tables only and reports a fresh head, which beats the mix where words predict."""
    found = evaluated(data, "--folds", "3", "--tiers", "short,long")

    assert [point["extra_budget"] for point in found["points"]] == [0.25, 0.5, 0.75]
    assert all(point.keys() == POINT for point in found["points"])
    assert found["prompts"] == 120
    assert found["points"][1]["accuracy"] > found["points"][1]["mix"] + 0.1


def test_head_on_new_prompts(head: Path, tmp_path: Path) -> None:
    """A trained head is measured only on prompts that it was not trained on."""
    fresh = made.table(200, seed=1)  # the first 120 prompts are those trained on

    found = evaluated(head, made.write(fresh, tmp_path / "made.jsonl"), "--tiers", "short,long")

    assert found["prompts"] == 80
    assert "120 prompts" in found["setting"]
    assert found["points"][1]["accuracy"] > found["points"][1]["mix"] + 0.1


def test_head_on_its_own_training_data(head: Path, data: Path) -> None:
    """If a head is measured on its training data alone, the report says that the figures are too good."""
    assert "TRAINED ON ALL" in evaluated(head, data)["setting"]


def test_tiers_that_the_head_does_not_know(head: Path, tmp_path: Path) -> None:
    """New tiers are calibrated on a part of the table and measured on the rest."""
    table = made.table(240, seed=2)
    path = made.write(table, tmp_path / "other.jsonl")
    path.write_text(path.read_text().replace('"short"', '"quick"').replace('"long"', '"slow"'))

    found = evaluated(head, path, "--tiers", "quick,slow")

    assert "calibrated" in found["setting"]
    assert found["points"][1]["accuracy"] > found["points"][1]["mix"]


def test_table_for_people(data: Path, head: Path, tmp_path: Path) -> None:
    """Without --json the command prints a table, and --out writes a report with figures."""
    found = CliRunner().invoke(cli, ["evaluate", str(head), str(data), "--out", str(tmp_path / "report")])

    assert found.exit_code == 0, found.output
    assert "50%" in found.stdout
    assert {path.name for path in (tmp_path / "report").iterdir()} >= {
        "report.json", "report.md", "curves.png", "curves.svg",
    }  # fmt: skip
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["tables"][0]["prompts"] == 120


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["general"], "at least one table"),
        (["no-such-head", "{data}"], "no-such-head"),
        (["{data}", "{data}"], "--folds"),
        (["{data}", "--folds", "3", "--tiers", "short,none"], "no tier 'none'"),
        (["{data}", "--folds", "3", "--tiers", "short"], "two"),
        (["{data}", "--folds", "3", "--tiers", "short,short"], "once"),
        (["{missing}", "--folds", "3"], "missing.jsonl"),
        (["{broken}", "--folds", "3"], "broken.jsonl:2:"),
    ],
)
def test_bad_input(arguments: list[str], message: str, data: Path, tmp_path: Path) -> None:
    """Bad input gives one clear error on standard error, nothing on standard output, and status 2."""
    broken = tmp_path / "broken.jsonl"
    broken.write_text(data.read_text().splitlines()[0] + "\n{not json}\n")
    names = {"data": data, "missing": tmp_path / "missing.jsonl", "broken": broken}

    found = CliRunner().invoke(cli, ["evaluate", *(one.format(**names) for one in arguments), "--json"])

    assert found.exit_code == 2, found.output
    assert message in " ".join(found.stderr.split())
    assert found.stdout == ""


def odd(kind: str, count: int) -> list[dict]:
    """Legal rows of a kind that no method was designed for."""
    random = np.random.default_rng(0)
    texts = {
        "unicode": "数学 {} 🧮 \u202e\u0000 ÄÖ", "huge": "x{} + y " * 40_000, "duplicates": "Question {}?",
    }  # fmt: skip
    rows = []
    for at in range(count):
        constant = kind in {"right", "wrong"}
        cells = {
            tier: {
                "correct": float(kind == "right") if constant else float(random.random() < chance),
                "tokens": 0.0 if kind == "free" else 10.0 * (1 + chance) + at % 3,
            }
            for tier, chance in (("a", 0.4), ("b", 0.8))
        }
        number = at // 2 if kind == "duplicates" else at
        prompt = texts.get(kind, "What is {} plus {}?").replace("{}", str(number))
        rows.append({"prompt": prompt, "tiers": cells})
    return rows


@pytest.mark.parametrize("kind", ["unicode", "huge", "duplicates", "right", "wrong", "free"])
def test_odd_tables(kind: str, tmp_path: Path) -> None:
    """For any legal table the points are finite and no better than a clairvoyant's."""
    path = tmp_path / "odd.jsonl"
    rows = odd(kind, 120 if kind == "duplicates" else 60)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    for found in (evaluated(path, "--folds", "2"), evaluated("general", path)):
        assert found["prompts"] == 60
        assert all(math.isfinite(value) for point in found["points"] for value in point.values())
        if found["oracle"] == "clairvoyant":
            assert all(point["accuracy"] <= point["oracle"] + 1e-9 for point in found["points"])
        assert all(point["accuracy"] == (kind == "right") for point in found["points"] if kind in CONSTANT)


CONSTANT = {"right", "wrong"}


@pytest.mark.parametrize("count", [1, 3, 9])
def test_too_few(count: int, tmp_path: Path) -> None:
    """Too few prompts to learn new tiers give one clear error instead of a figure."""
    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in odd("plain", count)))

    for command in (["evaluate", str(path), "--folds", "5"], ["evaluate", "general", str(path)]):
        found = CliRunner().invoke(cli, [*command, "--json"])
        assert found.exit_code == 2
        assert "too few" in found.stderr
        assert found.stdout == ""


def test_train_on_a_broken_table(tmp_path: Path) -> None:
    """If a table is broken, training names the file and the line, and writes nothing."""
    (tmp_path / "t.jsonl").write_text('{"prompt": "x", "tiers": {"a": {"correct": 2, "tokens": 1}}}\n')

    found = CliRunner().invoke(cli, ["train", str(tmp_path / "t.jsonl"), "--out", str(tmp_path / "head")])

    assert found.exit_code == 2
    assert "t.jsonl:1:" in found.stderr
    assert not (tmp_path / "head").exists()


TRAIN, CALIBRATE = ["train", "{data}", "--out", "{out}"], ["calibrate", "{head}", "{data}", "--out", "{out}"]


def run(command: list[str], rows: list[dict], head: Path, folder: Path) -> tuple[int, str, Path]:
    """Exit status, standard error on one line, and the head's folder, of a command on these rows."""
    data, out = folder / "rows.jsonl", folder / "out"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = {"data": data, "head": head, "out": out}
    found = CliRunner().invoke(cli, [part.format(**names) for part in command])
    return found.exit_code, " ".join(found.stderr.split()), out


@pytest.mark.parametrize("command", [TRAIN, CALIBRATE])
def test_tables_that_teach_nothing_are_refused(command: list[str], head: Path, tmp_path: Path) -> None:
    """Too few prompts, a single tier, a rare tier, and values that are no numbers: one error, and no head."""
    plain = odd("plain", 40)
    single = [{**row, "tiers": {"a": row["tiers"]["a"]}} for row in plain]
    rare = [*plain[:10], *single[10:]]
    broken = [*plain[:5], {**plain[5], "tiers": {"a": {"correct": math.nan, "tokens": 1.0}}}]
    for rows, says in (
        (odd("plain", 19), "19 prompts are too few"),
        (single, "a is its only tier"),
        (rare, "10 outcomes of the tier b are too few"),
        (broken, "rows.jsonl:6:"),
    ):
        status, error, out = run(command, rows, head, tmp_path)
        assert status == 2
        assert says in error
        assert not out.exists()


@pytest.mark.parametrize("command", [TRAIN, CALIBRATE])
@pytest.mark.parametrize(("kind", "count"), [("right", 20), ("wrong", 40)])
def test_fallback_is_stated(command: list[str], kind: str, count: int, head: Path, tmp_path: Path) -> None:
    """If nothing can be learnt about prompts, the command and the manifest say that constants decide."""
    status, error, out = run(command, odd(kind, count), head, tmp_path)

    assert status == 0, error
    assert "rows: all prompts get the same estimates" in error
    assert json.loads((out / "manifest.json").read_text())["metrics"]["rows"]["fit"] == "constants"


def test_results_without_tables(tmp_path: Path) -> None:
    """A folder without any of the tables is an error, not an empty page."""
    found = CliRunner().invoke(cli, ["results", "--data", str(tmp_path)])

    assert found.exit_code == 2
    assert "none of the tables" in found.stderr


def test_harmful_head_is_refused(tmp_path: Path) -> None:
    """A head whose prior would do harm on the tables that it was fitted to is not written."""
    table = made.table(120)
    answers = replace(table, tokens=table.tokens * [3000.0, 0.01])  # thinks in a tenth of a token
    path = made.write(answers, tmp_path / "made.jsonl")

    found = CliRunner().invoke(
        cli, ["train", str(path), "--out", str(tmp_path / "head"), "--rungs", "made:short=0,long=900"]
    )

    assert found.exit_code == 2
    assert "does harm" in found.output
    assert not (tmp_path / "head").exists()


def test_calibrating_with_budgets(head: Path, data: Path, tmp_path: Path) -> None:
    """With the thinking budgets of the tiers, the prior is where few outcomes start from."""
    command = ["calibrate", str(head), str(data), "--model-set", "mine", "--out", str(tmp_path / "head")]
    found = CliRunner().invoke(cli, [*command, "--rungs", "long=110,short=0"])

    assert found.exit_code == 0, found.output
    tuned = Head.load(tmp_path / "head")
    assert tuned.sets["mine"].lengths == {"short": 0.0, "long": 110.0}
    assert tuned.manifest["metrics"]["mine"]["prior"].keys() == {"correct", "tokens"}

    found = CliRunner().invoke(cli, [*command, "--rungs", "short=0,longest=110"])
    assert found.exit_code == 2
    assert "longest" in found.output
