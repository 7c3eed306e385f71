"""The metrics of the evidence: its store, judged answers, and shadow pairs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from gateway.evidence.service import EvidenceService
from tests.evidence.made import DAY, decision, eventually_async, shadow
from tests.fakes.backend import Backend
from tests.http.raw_http import ask
from tests.http.test_metrics import sample, scrape
from tests.serving import Running, configuration, serving

pytestmark = pytest.mark.usefixtures("impatient")
PLACE = {"model": "tiny", "tier": "short", "arm": "holdout"}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown decisions are looked for only twice."""
    monkeypatch.setattr("gateway.evidence.feedback_desk._PAUSES", (0.05,))


def evidence_of(running: Running) -> EvidenceService:
    assert running.gateway.evidence
    return running.gateway.evidence


def stored_in(backend: Backend, folder: Path) -> dict[str, Any]:
    return configuration(backend.url, evidence={"file": str(folder / "evidence.db")})


async def test_store_is_seen(backend: Backend, tmp_path: Path) -> None:
    """Rows written, by table, the size of the store, and the age of its oldest decision."""
    async with serving(stored_in(backend, tmp_path)) as running:
        writer = evidence_of(running).writer
        await eventually_async(lambda: writer.watch.size)
        writer.watch._next_look = 0.0
        writer._next_look = 0.0
        for number in range(3):
            writer.put(decision(number, at=time.time() - DAY))
        writer.put(shadow(1, flipped=True, served_score=0.0))
        writer.put(shadow(2))
        writer.put(shadow(3, shadow_score=None))
        await eventually_async(lambda: writer.watch.oldest)
        found = await scrape(running)

    def value(name: str, **labels: str) -> float | None:
        return found.get((f"thinkmeter_{name}", tuple(sorted(labels.items()))))

    assert value("evidence_rows_total", table="decisions") == 3
    assert value("evidence_rows_total", table="shadow_pairs") == 3
    assert value("evidence_waiting") == 0
    assert value("evidence_store_up") == 1
    assert (value("evidence_store_bytes") or 0) > 10_000
    assert value("evidence_oldest_seconds") == pytest.approx(DAY, abs=60)
    for result in ("shadow", "tie", "ungraded"):
        assert value("shadow_pairs_total", model="tiny", result=result) == 1
    assert value("shadow_flips_total", model="tiny") == 1


async def test_lost_store_is_seen(backend: Backend, tmp_path: Path) -> None:
    """A store that cannot be opened is down; rows wait, and later ones are dropped."""
    (tmp_path / "file").touch()
    evidence = {"file": str(tmp_path / "file" / "evidence.db"), "queue": 100}
    async with serving(configuration(backend.url, evidence=evidence)) as running:
        writer = evidence_of(running).writer
        await eventually_async(lambda: writer.failing)
        for number in range(103):
            writer.put(decision(number))

        assert await sample(running, "evidence_store_up") == 0
        assert await sample(running, "evidence_dropped_total", reason="invalid") == 0
        assert await sample(running, "evidence_waiting") == 100
        assert await sample(running, "evidence_dropped_total", reason="full") == 3


async def test_judged_answers_are_counted_once(backend: Backend, tmp_path: Path) -> None:
    """By what a source says first: not again when it repeats or changes that, nor if it is not taken."""
    async with serving(stored_in(backend, tmp_path)) as running:
        for number, correct in ((1, 0.75), (2, 0.5)):
            evidence_of(running).writer.put(decision(number, arm="holdout", correct=correct))
        for number, fields in (
            (1, {"correct": True}),
            (1, {"correct": True, "comment": "indeed"}),
            (1, {"correct": False}),
            (1, {"correct": False, "replace": True}),
            (1, {"score": 0.25, "source": "tests"}),
            (2, {"correct": False}),
            (3, {"correct": False}),
        ):
            await ask(
                running.http, running.url, "/v1/feedback", {"decision_id": decision(number).id} | fields
            )

        for verdict in ("right", "partly", "wrong"):
            assert await sample(running, "outcomes_total", **PLACE, verdict=verdict) == 1
        assert await sample(running, "outcome_scores_total", **PLACE) == 1.25
        assert await sample(running, "outcome_expected_total", **PLACE) == 0.75 + 0.75 + 0.5


async def test_without_a_store_nothing_is_shown(running: Running) -> None:
    """A gateway without evidence has no series about it, so that no alert can fire."""
    named = {name for name, _ in await scrape(running) if "evidence" in name or "outcome" in name}
    assert named == set()
