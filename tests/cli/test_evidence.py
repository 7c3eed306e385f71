"""`thinkmeter evidence`: what is kept is listed, exported and deleted for good."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from typer import BadParameter

from gateway.cli.evidence import moment
from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import open_store, secret_of
from gateway.evidence.rows import pseudonym
from tests.cli.command import run, write
from tests.evidence import made
from tests.evidence.made import DAY, NOW, counts, decision, measured, shadow, store_rows
from tests.serving import configuration

SECRET_TEXT = "the launch code is swordfish"


@pytest.fixture
def settings(tmp_path: Path) -> EvidenceSettings:
    return EvidenceSettings(file=str(tmp_path / "evidence.db"), prompts=True)


@pytest.fixture
def config(tmp_path: Path, settings: EvidenceSettings) -> str:
    evidence = {"file": settings.file, "prompts": True}
    return write(tmp_path, configuration("http://127.0.0.1:1", evidence=evidence))


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_list(config: str, settings: EvidenceSettings) -> None:
    """Tables with rows and times, the size, and the newest decisions."""
    store_rows(settings, [*map(decision, range(1_234)), made.feedback(1)])

    shown = run("evidence", "list", config)

    assert shown.exit_code == 0
    assert "1,234" in shown.stdout
    assert "2026-09-21 14:13:20" in shown.stdout
    assert "MiB" in shown.stdout
    found = json.loads(run("evidence", "list", config, "--json", "--last", "2").stdout)
    assert [row["id"] for row in found["newest"]] == [decision(1_233).id, decision(1_232).id]
    assert found["tables"][1] == {"table": "feedback", "rows": 1, "first": NOW + 1, "last": NOW + 1}


def test_list_with_a_clock_that_was_wrong(config: str, settings: EvidenceSettings) -> None:
    """A time that no calendar has is shown as a number."""
    store_rows(settings, [decision(0, at=1e18), decision(1, at=-1e18)])

    assert "1e+18" in run("evidence", "list", config).stdout


def test_export_lines(config: str, settings: EvidenceSettings) -> None:
    """Every field comes as JSON: estimates as an object, features in Base64, truth as truth."""
    store_rows(settings, [decision(i, features=b"\0\xff", stream=bool(i), prompt="ö\n") for i in range(3)])

    rows = lines(run("evidence", "export", config).stdout)

    assert [row["id"] for row in rows] == [decision(i).id for i in range(3)]
    assert rows[0]["rungs"] == json.loads(made.RUNGS)
    assert (rows[0]["features"], rows[0]["prompt"], rows[0]["cap"]) == ("AP8=", "ö\n", None)
    assert [row["stream"] for row in rows] == [False, True, True]
    assert {row["table"] for row in rows} == {"decisions"}


def test_export_parquet(config: str, settings: EvidenceSettings, tmp_path: Path) -> None:
    """The same rows, with types, also if a column is empty."""
    store_rows(settings, [decision(i, features=b"\0\xff") for i in range(3)])
    path = tmp_path / "out.parquet"

    assert run("evidence", "export", config, "--to", str(path)).exit_code == 0

    table = parquet.read_table(path)
    row = table.to_pylist()[2]
    assert (row["id"], row["at"], row["stream"]) == (decision(2).id, NOW + 2, False)
    assert (row["features"], row["rungs"], row["prompt"]) == (b"\0\xff", made.RUNGS, None)
    assert str(table.schema.field("cap").type) == "int64"
    assert {p.name for p in tmp_path.glob("*out*")} == {"out.parquet"}


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--since", "2026-09-21T14:13:22Z"], [2, 3, 4]),
        (["--until", "2026-09-21T14:13:22"], [0, 1]),
        (["--since", "2026-09-21T16:13:21+02:00", "--until", "2026-09-21T14:13:23Z"], [1, 2]),
        (["--since", "2026-09-22"], []),
        (["--model", "even"], [0, 2, 4]),
        (["--model", "none"], []),
    ],
)
def test_export_some(config: str, settings: EvidenceSettings, options: list[str], ids: list[int]) -> None:
    """By time and by model."""
    store_rows(settings, [decision(i, model="even" if i % 2 == 0 else "odd") for i in range(5)])

    assert [row["id"] for row in lines(run("evidence", "export", config, *options).stdout)] == [
        decision(i).id for i in ids
    ]


def test_export_other_tables(config: str, settings: EvidenceSettings, tmp_path: Path) -> None:
    """Every table has its rows."""
    store_rows(settings, [made.feedback(), shadow(), measured()])
    for name in ("feedback", "shadow_pairs", "measurements"):
        path = tmp_path / f"{name}.jsonl"
        assert run("evidence", "export", config, "--table", name, "--to", str(path)).exit_code == 0
        assert [row["table"] for row in lines(path.read_text())] == [name]


def ids_of(config: str, table: str, *options: str) -> list[str]:
    """The decisions that the exported rows are, or are about."""
    rows = lines(run("evidence", "export", config, "--table", table, *options).stdout)
    return [row["decision"] if "decision" in row else row["id"] for row in rows]


def test_export_what_a_key_did(config: str, settings: EvidenceSettings) -> None:
    """What it asked, what was said about that, and what it said: all that `delete --key` deletes."""
    asked = [decision(1, key="bob"), decision(2), decision(3, key="bob", model="b")]
    said = [made.feedback(1, key=None), made.feedback(2, key="bob", source="b"), made.feedback(2)]
    store_rows(settings, [*asked, *said, shadow(1), shadow(2), made.feedback(3, key="bob")])
    ids = [decision(i).id for i in range(4)]

    assert ids_of(config, "decisions", "--key", "bob") == [ids[1], ids[3]]
    assert ids_of(config, "feedback", "--key", "bob") == [ids[1], ids[2], ids[3]]
    assert ids_of(config, "shadow_pairs", "--key", "bob") == [ids[1]]
    assert ids_of(config, "decisions", "--key", "bob", "--model", "b") == [ids[3]]
    assert ids_of(config, "feedback", "--key", "bob", "--model", "b") == [ids[3]]
    assert ids_of(config, "decisions", "--key", "nobody") == []


def test_export_a_conversation(config: str, settings: EvidenceSettings) -> None:
    """By its name as the client sent it, or by its pseudonym."""
    engine = open_store(settings)
    stored = pseudonym(secret_of(engine), "session-7")
    engine.dispose()
    store_rows(settings, [decision(i, conversation=stored if i < 2 else None) for i in range(5)])
    store_rows(settings, [made.feedback(1), shadow(0), made.feedback(4), shadow(3)])
    ids = [decision(i).id for i in range(2)]

    for name in ("session-7", stored):
        assert ids_of(config, "decisions", "--conversation", name) == ids
        assert ids_of(config, "feedback", "--conversation", name) == ids[1:]
        assert ids_of(config, "shadow_pairs", "--conversation", name) == ids[:1]


@pytest.mark.parametrize("options", [["--key", "bob"], ["--conversation", "session-7"]])
def test_measurements_are_nobodys(config: str, settings: EvidenceSettings, options: list[str]) -> None:
    """They are about prompts that the operator chose; an empty export would look like an answer."""
    store_rows(settings, [measured()])

    assert run("evidence", "export", config, "--table", "measurements", *options).exit_code == 2


@pytest.mark.parametrize(
    "options", [["--table", "secrets"], ["--to", "x.csv"], ["--since", "yesterday"], ["--until", "7y"]]
)
def test_export_refuses(config: str, options: list[str]) -> None:
    """Unknown tables, formats and times are mistakes; nobody exports the secret."""
    assert run("evidence", "export", config, *options).exit_code == 2


def text_of(settings: EvidenceSettings) -> bytes:
    """All that the files of the store contain."""
    return b"".join(path.read_bytes() for path in Path(settings.file).parent.glob("evidence.db*"))


def test_deleted_text_is_gone_from_the_files(config: str, settings: EvidenceSettings) -> None:
    """Neither the file nor its log contains a deleted prompt or comment, with a gateway that has it open."""
    long = f"{SECRET_TEXT} {'x' * 9_000}"
    engine = open_store(settings)
    with engine.connect():
        store_rows(settings, [decision(i, key="bob", prompt=long) for i in range(50)])
        store_rows(
            settings, [made.feedback(3, key="bob", comment=SECRET_TEXT), *map(decision, range(100, 150))]
        )
        assert SECRET_TEXT.encode() in text_of(settings)

        deleted = run("evidence", "delete", config, "--key", "bob", "--yes")
    engine.dispose()

    assert deleted.exit_code == 0, deleted.output
    assert "decisions: 50 deleted" in deleted.stdout
    assert "feedback: 1 deleted" in deleted.stdout
    assert SECRET_TEXT.encode() not in text_of(settings)
    assert counts(settings) == {"decisions": 50}


def test_delete_what_a_key_did(config: str, settings: EvidenceSettings) -> None:
    """Its decisions, the feedback and shadow pairs on them, and its own feedback; nobody else's."""
    rows = [decision(1, key="bob"), decision(2, key="alice"), made.feedback(1, key=None), shadow(1)]
    store_rows(settings, [*rows, made.feedback(2, key="bob", source="b"), made.feedback(2), shadow(2)])

    assert run("evidence", "delete", config, "--key", "bob", "--yes").exit_code == 0

    assert counts(settings) == {"decisions": 1, "feedback": 1, "shadow_pairs": 1}


def test_delete_a_conversation(config: str, settings: EvidenceSettings) -> None:
    """By its name as the client sent it, which is stored as a pseudonym only."""
    engine = open_store(settings)
    stored = pseudonym(secret_of(engine), "session-7")
    engine.dispose()
    store_rows(settings, [decision(i, conversation=stored if i < 2 else None) for i in range(5)])
    store_rows(settings, [made.feedback(1), shadow(0), made.feedback(4)])

    assert run("evidence", "delete", config, "--conversation", "session-7", "--yes").exit_code == 0

    assert counts(settings) == {"decisions": 3, "feedback": 1}


def test_delete_what_is_old(config: str, settings: EvidenceSettings) -> None:
    """All tables, by age; feedback on a deleted decision goes with it."""
    now = time.time()
    old = [make(1, at=now - 31 * DAY) for make in (decision, made.feedback, shadow, measured)]
    new = [make(2, at=now - 29 * DAY) for make in (decision, made.feedback, shadow, measured)]
    store_rows(settings, [*old, *new, made.feedback(1, at=now, source="late")])

    assert run("evidence", "delete", config, "--older-than", "30d", "--yes").exit_code == 0

    assert set(counts(settings).values()) == {1}


def test_delete_all_asks(config: str, settings: EvidenceSettings) -> None:
    """Without --yes it asks. The secret stays, because running gateways use it."""
    store_rows(settings, [make(1) for make in (decision, made.feedback, shadow, measured)])
    engine = open_store(settings)
    secret = secret_of(engine)

    assert run("evidence", "delete", config, "--all", stdin="n\n").exit_code == 1
    assert len(counts(settings)) == 4
    assert run("evidence", "delete", config, "--all", stdin="y\n").exit_code == 0
    assert counts(settings) == {}
    assert secret_of(engine) == secret
    engine.dispose()


@pytest.mark.parametrize("options", [[], ["--all", "--key", "bob"], ["--older-than", "soon"]])
def test_delete_refuses(config: str, settings: EvidenceSettings, options: list[str]) -> None:
    """Without exactly one choice nothing is deleted."""
    store_rows(settings, [decision()])

    assert run("evidence", "delete", config, *options, "--yes").exit_code == 2
    assert counts(settings) == {"decisions": 1}


def test_nothing_is_kept(tmp_path: Path, config: str) -> None:
    """Without `evidence` in the configuration, or without a store yet, the commands say so and make none."""
    off = write(
        tmp_path / "off" if (tmp_path / "off").mkdir() is None else tmp_path,
        configuration("http://127.0.0.1:1"),
    )

    assert "not configured" in run("evidence", "list", off).stderr
    missing = run("evidence", "list", config)
    assert missing.exit_code == 1
    assert "no store of evidence" in missing.stderr
    assert not (tmp_path / "evidence.db").exists()


@pytest.mark.parametrize(
    ("written", "expected"),
    [("90s", -90), ("1.5h", -5400), ("7d", -7 * DAY), ("2w", -14 * DAY), ("0d", 0)],
)
def test_ages(written: str, expected: float) -> None:
    """Numbers with a unit count back from now."""
    assert moment(written, 1_000_000) == 1_000_000 + expected


@pytest.mark.parametrize("written", ["", "7", "d", "-1d", "2026-13-01", "7y"])
def test_no_ages(written: str) -> None:
    """Anything else is a mistake."""
    with pytest.raises(BadParameter):
        moment(written, 0)
