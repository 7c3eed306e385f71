"""A candidate head decides beside the one that serves: both are in the record, and it acts on nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import open_store
from gateway.evidence.heads import following
from gateway.evidence.heads.archive import add_head, judge_head, newest_promotion, promote_head, roll_back
from router_model.artifact import PackedHead, pack_artifact
from router_model.head import ARTIFACTS, Head
from tests.evidence.made import eventually_async
from tests.fakes.backend import Backend
from tests.http.raw_http import ask
from tests.serving import Running, configuration, serving

CHAT = "/v1/chat/completions"
WORDS = "What is the sum of 12 and 30? Answer with a number."


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "evidence.db"


@pytest.fixture
def store(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(following, "FOLLOW_SECONDS", 0.02)
    engine = open_store(EvidenceSettings(file=str(file)))
    yield engine
    engine.dispose()


def kept(store: Engine, name: str) -> str:
    """Keep the head `tiny` under a name, and return its version."""
    packed = pack_artifact(ARTIFACTS / "tiny")
    packed = PackedHead(json.dumps(json.loads(packed.manifest) | {"name": name}).encode(), packed.arrays)
    return add_head(store, packed, Head.unpack(packed, name))


def candidate_of(running: Running) -> str | None:
    assert running.gateway.evidence
    candidate = running.gateway.evidence.recorder.candidate
    return candidate.head.version if candidate else None


async def both(running: Running, file: Path) -> list[Any]:
    """Decisions with those of the candidate, once all is written."""
    assert running.gateway.evidence
    await running.gateway.evidence.stop()
    query = (
        "SELECT d.rung AS served, d.correct AS p, d.tokens AS t, c.* FROM decisions d"
        " LEFT JOIN candidate_decisions c ON c.decision = d.id ORDER BY d.at"
    )
    with sqlite3.connect(file) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(query).fetchall()


async def asked(running: Running, words: str, **fields: Any) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": words}]} | fields
    assert (await ask(running.http, running.url, CHAT, body)).status == 200


async def test_the_same_head_decides_the_same(backend: Backend, file: Path, store: Engine) -> None:
    """A candidate that equals the head that serves chooses its rungs and expects the same of them.

    Also for a prompt that is too long to be read whole, for which the store has only features.
    """
    version = kept(store, "copy")
    settings = configuration(
        backend.url, head="tiny", price=0.5, evidence={"file": str(file), "candidates": 1.0}
    )
    async with serving(settings) as running:
        await eventually_async(lambda: candidate_of(running) == version)
        for words in ("2 + 2?", WORDS, WORDS * 200):
            await asked(running, words)
        await asked(running, "2 + 2?", model="tiny:long")
        *rows, pinned = await both(running, file)

    assert len(rows) == 3
    for row in rows:
        assert (row["candidate"], row["rung"]) == (version, row["served"])
        assert row["correct"] == row["served_correct"] == pytest.approx(row["p"], abs=1e-4)
        assert row["tokens"] == row["served_tokens"] == pytest.approx(row["t"], rel=1e-3)
    assert pinned["candidate"] is None, "nobody chose, so that there is nothing to compare"


async def test_it_acts_on_nothing(backend: Backend, file: Path, store: Engine) -> None:
    """The head of the configuration goes on deciding, and is named in each decision."""
    version = kept(store, "other")
    async with serving(
        configuration(backend.url, evidence={"file": str(file), "candidates": 1.0})
    ) as running:
        await asked(running, WORDS)
        await eventually_async(lambda: candidate_of(running) == version)
        await asked(running, WORDS)
        decisions = [record.decision for record in await running.recorded(2)]

        assert decisions[0] and decisions[1]
        assert decisions[0].rungs == decisions[1].rungs
        assert decisions[0].versions == decisions[1].versions
        promote_head(store, version, by="alice", why="")
        await eventually_async(lambda: candidate_of(running) is None)


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 5, 35)])
async def test_a_share_is_asked(
    backend: Backend, file: Path, store: Engine, share: float, least: int, most: int
) -> None:
    version = kept(store, "copy")
    settings = configuration(backend.url, evidence={"file": str(file), "candidates": share})
    async with serving(settings) as running:
        if share:
            await eventually_async(lambda: candidate_of(running) == version)
        for _ in range(40):
            await asked(running, "2 + 2?")
        rows = await both(running, file)

    assert least <= sum(row["candidate"] is not None for row in rows) <= most


async def test_a_candidate_for_other_models_is_not_tried(
    backend: Backend, file: Path, store: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    kept(store, "copy")
    settings = configuration(backend.url, evidence={"file": str(file)})
    settings["models"] = {"other": settings["models"]["tiny"]}
    async with serving(settings):
        await eventually_async(lambda: "it knows tiny, and none of other" in caplog.text)


@pytest.mark.parametrize("asked_for", [True, False])
async def test_a_candidate_that_passes_is_promoted_only_if_asked_for(
    backend: Backend, file: Path, store: Engine, asked_for: bool
) -> None:
    """Not before it has passed, and not again after it was rolled back."""
    version = kept(store, "copy")
    evidence = {"file": str(file), "auto_promote": asked_for}
    async with serving(configuration(backend.url, evidence=evidence)) as running:
        await eventually_async(lambda: candidate_of(running) == version)
        assert newest_promotion(store) is None
        judge_head(store, version, {"passes": True, "reasons": ["better in tokens"]})
        if not asked_for:
            await asyncio.sleep(0.1)
            assert newest_promotion(store) is None
            return
        await eventually_async(lambda: running.gateway.snapshot.router.versions["head"] == version)
        line = newest_promotion(store)
        assert line
        assert (line.by, line.why) == ("auto_promote", "better in tokens")
        roll_back(store, by="alice", why="")
        await eventually_async(lambda: running.gateway.snapshot.promoted is None)
        await asyncio.sleep(0.1)
        assert running.gateway.snapshot.promoted is None
