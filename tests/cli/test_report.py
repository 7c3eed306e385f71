"""`thinkmeter report`: in text, as JSON and as a page; and a sceptic recomputes every figure of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.rows import DecisionRow
from tests.cli.command import run, write
from tests.evidence import made
from tests.evidence.made import NOW, decision, store_rows
from tests.evidence.reporting.making import COSTS, traffic
from tests.serving import configuration

RECOMPUTE = Path(__file__).parents[2] / "gateway" / "evidence" / "reporting" / "recompute.py"


@pytest.fixture
def settings(tmp_path: Path) -> EvidenceSettings:
    return EvidenceSettings(file=str(tmp_path / "evidence.db"))


@pytest.fixture
def config(tmp_path: Path, settings: EvidenceSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(time, "time", lambda: NOW + 0.7)
    evidence = {"file": settings.file}
    yield write(
        tmp_path, configuration("http://127.0.0.1:1", evidence=evidence, costs=COSTS.model_dump(mode="json"))
    )


def report(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("report", *arguments, "--json").stdout)
    return found


def bounds(written: dict[str, float] | None) -> list[float] | None:
    return None if written is None else [written["mean"], written["low"], written["high"]]


def assert_recomputed(shown: dict[str, Any], recomputed: dict[str, Any]) -> None:
    """Savings and right answers agree to a thousandth of the width of their interval."""

    def same(figure: dict[str, float] | None, other: list[float] | None) -> None:
        ours = bounds(figure)
        assert (ours is None) == (other is None)
        if ours and other:
            assert ours == pytest.approx(other, abs=1e-3 * (other[2] - other[1]))

    for name in ("tokens", "money", "gpu_hours"):
        for part in ("per_request", "total", "share"):
            same(shown[name][part], (recomputed[name] or {}).get(part))
    same(shown["right"]["difference"], (recomputed["right"] or {}).get("difference"))
    if recomputed["right"]:
        same(shown["right"]["adaptive_share"], recomputed["right"]["adaptive"])
        same(shown["right"]["holdout_share"], recomputed["right"]["holdout"])


@pytest.mark.parametrize("by", ["key", "team", "model"])
def test_every_figure_is_recomputed(config: str, settings: EvidenceSettings, tmp_path: Path, by: str) -> None:
    """The commands on the page, run as they stand there, give the figures of the page from exported rows."""
    store_rows(settings, traffic())
    page = tmp_path / "report.html"
    shown = report(config, "--days", "10", "--by", by, "--html", str(page))

    texts = [_unescaped(text) for text in re.findall(r"<pre>(.*?)</pre>", page.read_text(), re.DOTALL)]
    commands, program = texts
    assert program == RECOMPUTE.read_text()
    (tmp_path / "recompute.py").write_text(program)
    for line in commands.splitlines()[:2]:
        command, _, to = line.partition(" > ")
        words = [config if word == "thinkmeter.yaml" else word for word in command.split()[1:]]
        (tmp_path / to).write_text(run(*words).stdout)
    rest = "\n".join(commands.splitlines()[2:]).replace("python3", sys.executable)
    done = subprocess.run(["sh", "-ec", rest], cwd=tmp_path, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)

    assert_recomputed(shown["whole"], found["whole"])
    assert {str(group["group"]) for group in shown["groups"]} == found["groups"].keys()
    for group in shown["groups"]:
        assert_recomputed(group, found["groups"][str(group["group"])])
    assert [day.pop("day") for day in shown["days"]] == [int(day) for day in found["days"]]
    for day, other in zip(shown["days"], found["days"].values(), strict=True):
        assert day == pytest.approx(other)
    assert shown["minimums"] == found["minimums"]
    assert [each["requests"] for each in shown["left_out"]] == [n for n in found["left_out"].values() if n]
    assert shown["whole"]["tokens"]["per_request"]["low"] > 0


def _unescaped(text: str) -> str:
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#x27;", "'"), ("&amp;", "&")):
        text = text.replace(entity, character)
    return text


def test_text(config: str, settings: EvidenceSettings) -> None:
    """The terminal shows the sentences and tables, with what was left out."""
    store_rows(settings, traffic())

    shown = run("report", config, "--days", "10", "--by", "team", COLUMNS="200").stdout

    assert "Tokens were saved: " in shown
    assert "(none)" in shown
    assert "EUR" in shown
    assert "no request was held out under the configuration of that time" in shown
    assert re.search(r"[\d,]+ requests had a minimum", shown)


def test_no_holdout_is_not_enough_evidence(config: str, settings: EvidenceSettings, tmp_path: Path) -> None:
    """Without anybody held out nothing is said to be saved, and the page says so first."""
    store_rows(settings, [decision(i, at=NOW - 100 - i) for i in range(100)])

    shown = run("report", config, "--html", str(tmp_path / "page.html")).stdout

    assert "Not enough evidence: of 100 requests, none was held out." in shown.replace("\n", " ")
    assert "Not enough evidence: of 100 requests" in (tmp_path / "page.html").read_text()
    assert report(config)["whole"]["tokens"]["per_request"] is None


def test_more_tokens_are_no_saving(config: str, settings: EvidenceSettings) -> None:
    """Where the adaptive arm uses more, every figure has a minus, and the words say it."""
    rows = [
        decision(
            i, at=NOW - 500 + i, conversation=str(i), arm=arm, completion_tokens=200 + i % 7 - 100 * held
        )
        for i in range(200)
        for held in [i % 4 == 0]
        for arm in ["holdout" if held else "adaptive"]
    ]
    store_rows(settings, rows)

    shown = run("report", config, COLUMNS="250").stdout

    assert "Tokens were not saved but added" in shown
    assert "cost more" in shown
    assert re.search(r"−1\d\d", shown)
    assert report(config)["whole"]["tokens"]["total"]["high"] < 0


def test_page_stands_alone(config: str, settings: EvidenceSettings, tmp_path: Path) -> None:
    """No script, no link to another place, names of people and models escaped, plots inline."""
    rows = list(traffic())
    for row in rows:
        if isinstance(row, DecisionRow) and row.key == "a":
            row.key = "<script>alert(1)</script>"
    store_rows(settings, rows)
    run("report", config, "--days", "10", "--by", "key", "--html", str(tmp_path / "page.html"))

    page = (tmp_path / "page.html").read_text()

    assert "<script" not in page
    assert not re.search(r"""(?:src|href)\s*=|url\(|@import""", page.partition("<details>")[0])
    assert page.count("<svg") == 5
    assert "&lt;script&gt;alert(1)" in page
    assert "default-src 'none'" in page


def test_a_page_that_cannot_be_written(config: str, settings: EvidenceSettings, tmp_path: Path) -> None:
    store_rows(settings, [made.decision(1)])

    shown = run("report", config, "--html", str(tmp_path / "no" / "page.html"))

    assert shown.exit_code == 1
    assert "cannot write" in shown.stderr


def test_without_evidence(tmp_path: Path) -> None:
    """Without a store there is no report."""
    shown = run("report", write(tmp_path, configuration("http://127.0.0.1:1")))

    assert shown.exit_code == 2
    assert "`evidence` is not configured" in shown.stderr
