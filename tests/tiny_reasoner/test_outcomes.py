"""The shipped outcome tables are complete, can be reproduced, and show what the demo claims."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from examples.servers import TIERS
from examples.tiny_reasoner.cuts import Model, direct_samples, thinking_samples
from examples.tiny_reasoner.evaluate import BUDGETS, FURTHER, HERE, name, write_table
from examples.tiny_reasoner.report import markdown, mean, parts
from examples.tiny_reasoner.serve import WEIGHTS
from examples.tiny_reasoner.task import held_out_set
from router_model.head import load_named

TABLE = HERE / "measured" / "outcomes.jsonl.gz"


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of an outcome table."""
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """The published outcome table."""
    return read_table(TABLE)


def test_the_table_is_about_the_held_out_questions(rows: list[dict[str, Any]]) -> None:
    """The table has 2,000 held-out questions with their answers, four samples at each tier."""
    asked = held_out_set(2_000)
    assert [(row["prompt"], row["answer"]) for row in rows] == [(q.text, q.answer) for q in asked]
    assert all(list(row["tiers"]) == [name(budget) for budget in BUDGETS] for row in rows)
    assert all([cell["thinking"] for cell in row["tiers"].values()] == list(BUDGETS) for row in rows)
    assert all(tier["n"] == 4 for row in rows for tier in row["tiers"].values())


def test_the_training_table_is_about_other_held_out_questions(rows: list[dict[str, Any]]) -> None:
    """The training table has 4,000 other questions in the same form."""
    further = read_table(HERE / "measured" / "training.jsonl.gz")
    asked = held_out_set(2_000 + FURTHER)[2_000:]
    assert [(row["prompt"], row["answer"]) for row in further] == [(q.text, q.answer) for q in asked]
    assert {row["prompt"] for row in rows}.isdisjoint(row["prompt"] for row in further)
    assert all([cell["thinking"] for cell in row["tiers"].values()] == list(BUDGETS) for row in further)
    assert {row["id"] for row in rows}.isdisjoint(row["id"] for row in further)
    for tier in TIERS:
        assert mean(further, tier, "correct") == pytest.approx(mean(rows, tier, "correct"), abs=0.04)


def test_the_shipped_head_was_trained_on_the_training_table() -> None:
    """It names the file, and can be read at every budget between those measured."""
    head = load_named("tiny")
    file = (HERE / "measured" / "training.jsonl.gz").read_bytes()

    assert head.manifest["data"]["tiny"]["sha256"] == hashlib.sha256(file).hexdigest()
    assert list(head.sets["tiny"].lengths.values()) == list(BUDGETS)


def test_thinking_pays_on_hard_questions_and_not_on_easy_ones(rows: list[dict[str, Any]]) -> None:
    """At most 55 % of `direct` are right, at least 85 % of `long`; the easiest fifth needs no thought."""
    assert mean(rows, "direct", "correct") <= 0.55
    assert mean(rows, "long", "correct") >= 0.85
    easiest, hardest = parts(rows, 5)[0], parts(rows)[-1]
    assert mean(easiest, "direct", "correct") >= 0.9
    assert mean(easiest, "long", "correct") - mean(easiest, "direct", "correct") < 0.1
    assert mean(hardest, "long", "correct") < 0.4


def test_tiers_cost_what_they_should(rows: list[dict[str, Any]]) -> None:
    """The mean tokens of direct, short and long are at least as 1 : 4 : 12."""
    direct, short, long = (mean(rows, tier, "tokens") for tier in ("direct", "short", "long"))
    assert short >= 4 * direct
    assert long >= 12 * direct


def test_the_card_shows_the_table(rows: list[dict[str, Any]]) -> None:
    """The table in the model card agrees with the outcomes."""
    assert markdown(rows) in (WEIGHTS / "README.md").read_text("utf-8")
    assert markdown(rows) == (HERE / "measured" / "table.md").read_text("utf-8")


def test_named_tiers_are_among_the_budgets(rows: list[dict[str, Any]]) -> None:
    """Budgets rise, and so do the tokens; the named tiers have their own budgets among them."""
    assert list(BUDGETS) == sorted(set(BUDGETS))
    assert {tier: rows[0]["tiers"][tier]["thinking"] for tier in TIERS} == TIERS
    tokens = [mean(rows, name(budget), "tokens") for budget in BUDGETS]
    assert tokens == sorted(tokens)


def test_measuring_again_gives_the_same_picture(rows: list[dict[str, Any]]) -> None:
    """Sixty of the questions, asked again, agree with the table at every named tier, but for noise."""
    part, asked = rows[:60], held_out_set(2_000)[:60]
    model = Model(WEIGHTS, temperature=0.7, seed=7)
    samples = {0: direct_samples(model, asked, 1)} | thinking_samples(model, asked, (24, 96, 320), 1)
    for tier, budget in TIERS.items():
        again = sum(found[0].right for found in samples[budget]) / len(asked)
        assert again == pytest.approx(mean(part, tier, "correct"), abs=0.2)


def test_the_weights_are_small() -> None:
    """The whole model directory stays under 20 MiB."""
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 20 * 2**20


def test_a_table_is_written_the_same_way_twice(rows: list[dict[str, Any]], tmp_path: Any) -> None:
    """Equal rows give equal bytes, and the rows of the shipped table give its text."""
    write_table(rows, tmp_path / "again.gz")
    assert gzip.decompress((tmp_path / "again.gz").read_bytes()) == gzip.decompress(TABLE.read_bytes())
