"""Outcome tables: the format, what is refused and where, merging, and splits by prompt."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from router_model.training.outcomes import OutcomeError, folds, read_table, split

HERE = Path(__file__).parents[3]
TINY = HERE / "examples/tiny_reasoner/measured/outcomes.jsonl.gz"


def row(prompt: str, **tiers: tuple[float, float, int]) -> dict:
    """A line of a table: tier = (correct, tokens, samples)."""
    cells = {name: {"correct": c, "tokens": t, "n": n} for name, (c, t, n) in tiers.items()}
    return {"id": prompt, "dataset": "made", "prompt": prompt, "tiers": cells}


def written(path: Path, *rows: dict) -> Path:
    """The rows as JSON Lines."""
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def test_reads_gzip_and_plain_alike(tmp_path: Path) -> None:
    """Compression changes nothing but the digest."""
    plain = written(tmp_path / "t.jsonl", row("a", x=(1, 10, 1)), row("b", x=(0, 20, 2)))
    packed = tmp_path / "t.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))

    one, two = read_table(plain), read_table(packed)

    assert one.prompts == two.prompts == ("a", "b")
    assert one.correct.tolist() == two.correct.tolist() == [[1.0], [0.0]]
    assert one.name == two.name == "t"
    assert one.digest != two.digest


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "truncated"),
        ('{"prompt": "p"}', "missing required field `tiers`"),
        ('{"prompt": "p", "tiers": {}}', "length >= 1"),
        ('{"prompt": "", "tiers": {"a": {"correct": 1, "tokens": 1}}}', "length >= 1"),
        ('{"prompt": "p", "tiers": {"a": {"correct": 1.5, "tokens": 1}}}', "<= 1"),
        ('{"prompt": "p", "tiers": {"a": {"correct": 1, "tokens": -1}}}', ">= 0"),
        ('{"prompt": "p", "tiers": {"a": {"correct": NaN, "tokens": 1}}}', "malformed"),
        ('{"prompt": "p", "tiers": {"a": {"correct": 1, "tokens": 1, "n": 0}}}', ">= 1"),
        ('{"prompt": "p", "tiers": {"a": {"correct": 1, "tokens": 1, "thinking": -1}}}', ">= 0"),
        ('{"prompt": "p", "tiers": {"a": {"correct": 1, "tokens": 1, "thinking": 0.5}}}', "Expected `int"),
        ('{"prompt": 7, "tiers": {"a": {"correct": 1, "tokens": 1}}}', "Expected `str`"),
    ],
)
def test_names_the_line(tmp_path: Path, line: str, says: str) -> None:
    """A bad line is refused with its file and number; empty lines are counted and skipped."""
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(row("a", x=(1, 10, 1))) + "\n\n" + line + "\n")

    with pytest.raises(OutcomeError, match=r"bad\.jsonl:3: ") as caught:
        read_table(path)

    assert says in str(caught.value)


def test_refuses_what_is_no_table(tmp_path: Path) -> None:
    """Missing, empty and damaged files, unknown tiers, and rows without a common tier."""
    packed = tmp_path / "cut.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(row("a", x=(1, 1, 1))).encode())[:-9])
    apart = written(tmp_path / "apart.jsonl", row("a", x=(1, 1, 1)), row("b", y=(1, 1, 1)))

    for path, tiers, says in (
        (tmp_path / "none.jsonl", None, "No such file"),
        (written(tmp_path / "empty.jsonl"), None, "no outcomes"),
        (packed, None, "damaged gzip"),
        (apart, None, "no tier has an outcome in every row"),
        (apart, ["x", "y"], "no row has all"),
        (apart, ["z"], "no tier 'z'; there are x, y"),
    ):
        with pytest.raises(OutcomeError, match=says):
            read_table(path, tiers)


def test_tiers(tmp_path: Path) -> None:
    """By default the tiers of every row; named ones drop rows; `partial` keeps gaps as NaN with 0 samples."""
    path = written(tmp_path / "t.jsonl", row("a", x=(1, 10, 1), y=(0, 5, 1)), row("b", x=(0, 20, 1)))

    assert read_table(path).tiers == ("x",)
    assert read_table(path, ["y", "x"]).prompts == ("a",)
    assert read_table(path, ["y", "x"]).tokens.tolist() == [[5.0, 10.0]]
    gaps = read_table(path, partial=True)
    assert gaps.samples.tolist() == [[1, 1], [1, 0]]
    assert np.isnan(gaps.correct[1, 1])


def thinking(prompt: str, **budgets: int | None) -> dict:
    """A line of a table whose tiers state these thinking budgets."""
    one = row(prompt, **{tier: (1, 10, 1) for tier in budgets})
    for tier, budget in budgets.items():
        if budget is not None:
            one["tiers"][tier]["thinking"] = budget
    return one


def test_reads_the_thinking_budgets_that_cells_state(tmp_path: Path) -> None:
    """A tier has the budget of any of its cells; a tier that states none has no length."""
    path = written(tmp_path / "t.jsonl", thinking("a", x=0, y=None, z=96), thinking("b", x=0, y=None, z=None))
    table = read_table(path)

    assert table.lengths == {"x": 0, "z": 96}
    assert read_table(path, ["z", "y"]).lengths == {"z": 96}
    assert table.take([0]).lengths == table.lengths
    assert table.content != replace(table, lengths={}).content


def test_refuses_two_thinking_budgets_of_one_tier(tmp_path: Path) -> None:
    """The tier and both budgets are named."""
    path = written(tmp_path / "t.jsonl", thinking("a", x=24), thinking("b", x=96))

    with pytest.raises(OutcomeError, match=r"t\.jsonl: tier 'x' has the thinking budgets 24 and 96"):
        read_table(path)


def test_merges_the_same_prompt(tmp_path: Path) -> None:
    """Prompts that differ in case or space alone become one row, weighted by samples."""
    path = written(
        tmp_path / "t.jsonl",
        row("What is 2+2?", x=(1, 10, 1)),
        row("other", x=(0, 1, 1)),
        row("what  is 2+2?\n", x=(0, 20, 3)),
    )
    table = read_table(path)

    assert table.prompts == ("What is 2+2?", "other")
    assert table.correct[0] == pytest.approx([0.25])
    assert table.tokens[0] == pytest.approx([17.5])
    assert table.samples[0].tolist() == [4]


@pytest.mark.parametrize("kind", ["struct", "map", "frame"])
def test_parquet(tmp_path: Path, kind: str) -> None:
    """Parquet gives the same table as JSON Lines: nulls are gaps, maps and structs are equivalent."""
    rows = [row("a", x=(1, 10, 1), y=(0, 5, 4)), row("b", x=(0, 20, 1)), row("A", x=(0, 30, 3))]
    for one in rows:
        one["tiers"]["x"]["thinking"] = 24
    columns = pa.Table.from_pylist(rows)
    cell = pa.struct(
        [("correct", pa.float64()), ("tokens", pa.float64()), ("n", pa.int64()), ("thinking", pa.int64())]
    )
    if kind == "map":
        pairs = [list(one["tiers"].items()) for one in rows]
        tiers = pa.array(pairs, pa.map_(pa.string(), cell))
        columns = pa.table({"prompt": [one["prompt"] for one in rows], "tiers": tiers})
    if kind == "frame":  # as data frames write them: floats throughout
        floats = pa.struct(
            [
                ("correct", pa.float64()),
                ("tokens", pa.float64()),
                ("n", pa.float64()),
                ("thinking", pa.float64()),
            ]
        )
        tiers = pa.array([one["tiers"] for one in rows], pa.struct([("x", floats), ("y", floats)]))
        columns = pa.table({"prompt": [one["prompt"] for one in rows], "tiers": tiers})
    parquet.write_table(columns, tmp_path / "t.parquet")

    table = read_table(tmp_path / "t.parquet", partial=True)
    same = read_table(written(tmp_path / "t.jsonl", *rows), partial=True)

    assert table.tiers == same.tiers == ("x", "y")
    assert table.samples.tolist() == [[4, 4], [1, 0]]
    assert table.prompts == same.prompts
    assert table.lengths == same.lengths == {"x": 24}
    assert np.array_equal(table.correct, same.correct, equal_nan=True)
    assert np.array_equal(table.tokens, same.tokens, equal_nan=True)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"correct": 2.0, "tokens": 1.0}, "t.parquet:2: .*<= 1"),
        ({"correct": float("nan"), "tokens": 1.0}, "t.parquet:2: .*>= 0"),
        ({"correct": 0.5, "tokens": float("inf")}, "t.parquet:2: .*tokens"),
        ({"correct": None, "tokens": 1.0}, "t.parquet:2: .*correct"),
        (None, "t.parquet:2: .*length >= 1"),
    ],
)
def test_parquet_mistakes(tmp_path: Path, second: dict[str, float] | None, message: str) -> None:
    """A mistake is named with the number of its row, as a line is in JSON Lines."""
    good = {"correct": 1.0, "tokens": 1.0}
    rows = [{"prompt": "a", "tiers": {"x": good}}, {"prompt": "b", "tiers": {"x": second}}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")

    with pytest.raises(OutcomeError, match=message):
        read_table(tmp_path / "t.parquet")


def test_no_parquet_inside(tmp_path: Path) -> None:
    """A file with a false Parquet suffix is refused, and so is one without rows."""
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(OutcomeError, match=r"t\.parquet: .*not a parquet file"):
        read_table(tmp_path / "t.parquet")
    parquet.write_table(pa.table({"prompt": []}), tmp_path / "t.parquet")
    with pytest.raises(OutcomeError, match="no outcomes"):
        read_table(tmp_path / "t.parquet")


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyarrow the message says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")

    with pytest.raises(OutcomeError, match=r"\.\[parquet\]"):
        read_table(tmp_path / "t.parquet")


def test_split_of_a_real_table() -> None:
    """60 / 20 / 20, every prompt in exactly one part; folds of about the same size."""
    table = read_table(TINY)
    parts = split(table, 7)

    assert sorted(sum((part.prompts for part in parts), ())) == sorted(table.prompts)
    assert [round(len(part) / len(table), 1) for part in parts] == [0.6, 0.2, 0.2]
    assert np.bincount(folds(table, 5, 7)).min() > len(table) / 5 * 0.8
