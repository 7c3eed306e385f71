"""Decisions in the store of evidence: from a request to a row, beside what was said about its answer."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.evidence.features import decode_features
from router_model.encoders.ngrams import ngram_features
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.raw_http import ask
from tests.serving import Running, configuration, serving

KEYS = [{"name": "web", "key": "sk-web", "team": "search"}]
KEY = {"authorization": "Bearer sk-web"}


def body(text: str = "How many primes are there below 100?", **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": text}]} | fields


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The store of evidence."""
    return tmp_path / "evidence.db"


@pytest.fixture
async def recording(backend: Backend, file: Path) -> AsyncIterator[Running]:
    """A gateway with a key that keeps evidence."""
    async with serving(configuration(backend.url, keys=KEYS, evidence={"file": str(file)})) as running:
        yield running


async def rows(running: Running, file: Path, query: str = "SELECT * FROM decisions ORDER BY at") -> list[Any]:
    """What the store has once all is written."""
    assert running.gateway.evidence
    await running.gateway.evidence.stop()
    with sqlite3.connect(file) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(query).fetchall()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_row_says_what_was_decided_and_what_became_of_it(
    recording: Running, file: Path, stream: bool
) -> None:
    answer = await ask(recording.http, recording.url, "/v1/chat/completions", body(stream=stream), **KEY)
    record = (await recording.recorded(1))[0]
    decision = record.decision
    assert decision
    (row,) = await rows(recording, file)

    assert row["id"] == answer.headers["x-thinkmeter-decision-id"] == decision.id
    assert (row["key"], row["team"], row["model"], row["status"]) == ("web", "search", "tiny", 200)
    assert (row["tier"], row["reason"], row["arm"]) == (decision.tier, decision.reason, "adaptive")
    assert (row["price"], row["propensity"]) == (decision.price, decision.propensity)
    assert row["completion_tokens"] == record.usage.completion
    assert bool(row["stream"]) is stream
    assert json.loads(row["rungs"])["correct"] == list(decision.rungs.correct)
    assert row["prompt"] is None
    assert record.asked is None


async def test_features_are_those_of_the_prompt(recording: Running, file: Path) -> None:
    prompts = ["How much is 17 * 23?", "word and " * 40_000]
    for prompt in prompts:
        await ask(recording.http, recording.url, "/v1/chat/completions", body(prompt), **KEY)
    found = await rows(recording, file)

    assert (decode_features(found[0]["features"]).indices == ngram_features(prompts[0]).indices).all()
    assert all(len(row["features"]) < 10_000 for row in found)
    assert not file.read_bytes().count(b"word and")


async def test_all_turns_of_a_chat_are_one_conversation(recording: Running, file: Path) -> None:
    first = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi!"}]
    more = [{"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "And now?" * 50_000}]
    for messages in (first, first + more, first[:1] + more[1:]):
        await ask(
            recording.http, recording.url, "/v1/chat/completions", body() | {"messages": messages}, **KEY
        )
    names = [row["conversation"] for row in await rows(recording, file)]

    assert names[0] == names[1] != names[2]


async def test_feedback_is_joined_with_its_decision(recording: Running, file: Path) -> None:
    """From the header of an answer, streamed or not, to one line of the export."""
    sent = {}
    for stream, score in ((False, 1.0), (True, 0.25)):
        answer = await ask(recording.http, recording.url, "/v1/chat/completions", body(stream=stream), **KEY)
        name = answer.headers["x-thinkmeter-decision-id"]
        told = await ask(
            recording.http, recording.url, "/v1/feedback", {"decision_id": name, "score": score}, **KEY
        )
        assert told.status == 202
        sent[name] = score
    joined = "SELECT d.id, f.score, d.features FROM decisions d JOIN feedback f ON f.decision = d.id"
    found = await rows(recording, file, joined)

    assert {row["id"]: row["score"] for row in found} == sent
    assert all(row["features"] for row in found)


async def test_failures_are_recorded_and_undecided_requests_are_not(
    recording: Running, backend: Backend, file: Path
) -> None:
    backend.script(Fault(status=400))
    for fields in ({}, {"model": "unknown"}, {"messages": 7}):
        await ask(recording.http, recording.url, "/v1/chat/completions", body() | fields, **KEY)
    await ask(recording.http, recording.url, "/v1/models", None, **KEY)

    assert [row["status"] for row in await rows(recording, file)] == [400]


async def test_without_evidence_records_keep_nothing(backend: Backend) -> None:
    async with serving(configuration(backend.url)) as running:
        await running.chat()
        assert (await running.recorded(1))[0].asked is None


async def test_prompts_are_kept_if_configured(backend: Backend, file: Path) -> None:
    evidence = {"file": str(file), "prompts": True}
    async with serving(configuration(backend.url, evidence=evidence)) as running:
        await running.chat("What is 2 + 2?")
        found = await rows(running, file)

    assert [row["prompt"] for row in found] == ["What is 2 + 2?"]


async def test_a_lost_store_delays_and_fails_no_request(backend: Backend, file: Path) -> None:
    """The store cannot be opened at all; rows are counted as lost, requests are served."""
    evidence = {"file": str(file.parent / "missing" / "folder" / "e.db"), "queue": 100}
    async with serving(configuration(backend.url, evidence=evidence)) as running:
        answers = await asyncio.gather(*(running.chat() for _ in range(120)))
        running.gateway.finished.flush()
        writer = running.gateway.evidence.writer  # type: ignore[union-attr]
        assert {answer.status for answer in answers} == {200}
        assert writer.dropped["full"] == 20
