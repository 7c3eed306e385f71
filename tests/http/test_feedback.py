"""POST /v1/feedback: by the key that made the request, through the official client, single and in batches."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.evidence.recording import record_decisions
from tests.fakes.backend import Backend
from tests.http.raw_http import Answer, ask, assert_error
from tests.http.test_metrics import sample
from tests.serving import Running, configuration, serving

KEYS = [{"name": "web", "key": "sk-web"}, {"name": "other", "key": "sk-other"}]
FIELDS = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
async def judged(backend: Backend, tmp_path: Path) -> AsyncIterator[Running]:
    """A gateway with two keys and a store of evidence."""
    settings = configuration(backend.url, keys=KEYS, evidence={"file": str(tmp_path / "evidence.db")})
    async with serving(settings) as running:
        record_decisions(running)
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown decisions are looked for only twice."""
    monkeypatch.setattr("gateway.evidence.feedback_desk._PAUSES", (0.05,))


async def send(running: Running, body: Any, key: str | None = "sk-web") -> Answer:
    return await ask(
        running.http, running.url, "/v1/feedback", body, **({"authorization": f"Bearer {key}"} if key else {})
    )


async def answered(running: Running, key: str = "sk-web") -> str:
    """The ID of a decision whose answer a client has."""
    async with running.client(key) as client:
        raw = await client.chat.completions.with_raw_response.create(**FIELDS)
    return str(raw.headers["x-thinkmeter-decision-id"])


def kept(file: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(file) as connection:
        return connection.execute("SELECT decision, key, source, score, comment FROM feedback").fetchall()


async def test_feedback_reaches_the_store(backend: Backend, tmp_path: Path) -> None:
    """From the answer's header to a row beside the decision's, at the latest when the gateway stops."""
    file = tmp_path / "evidence.db"
    async with serving(configuration(backend.url, keys=KEYS, evidence={"file": str(file)})) as running:
        record_decisions(running)
        decision = await answered(running)
        body = {"decision_id": decision, "correct": False, "source": "user", "comment": "too short"}
        answer = await send(running, body)
        assert running.records[-1].key == "web"

    assert answer.status == 202
    told = {
        "object": "feedback",
        "decision_id": decision,
        "source": "user",
        "outcome": "taken",
        "status": 202,
    }
    assert answer.json == told
    assert kept(file) == [(decision, "web", "user", 0, "too short")]


@pytest.mark.parametrize("stream", [False, True])
async def test_with_the_official_client(judged: Running, stream: bool) -> None:
    """The client reads the ID from the headers, of a stream too, and sends feedback with its own `post`."""
    async with judged.client("sk-web") as client:
        if stream:
            chunks = await client.chat.completions.create(**FIELDS, stream=True)
            decision = chunks.response.headers["x-thinkmeter-decision-id"]
            async for _ in chunks:
                pass
        else:
            raw = await client.chat.completions.with_raw_response.create(**FIELDS)
            decision = raw.headers["x-thinkmeter-decision-id"]
        told = await client.post("/feedback", body={"decision_id": decision, "correct": True}, cast_to=object)
        with pytest.raises(openai.ConflictError) as raised:
            await client.post("/feedback", body={"decision_id": decision, "score": 0}, cast_to=object)
        with pytest.raises(openai.NotFoundError):
            await client.post("/feedback", body={"decision_id": "no-such", "score": 0}, cast_to=object)

    assert told["outcome"] == "taken"  # type: ignore[index]
    assert raised.value.code == "feedback_contradicts"


@pytest.mark.parametrize("given", [None, "my-own-id"])
async def test_by_request_id(judged: Running, given: str | None) -> None:
    """A client that sees no headers has `_request_id`, or chooses the ID itself."""
    async with judged.client("sk-web") as client:
        headers = {"x-request-id": given} if given else {}
        completion = await client.chat.completions.create(**FIELDS, extra_headers=headers)
        body = {"request_id": completion._request_id, "correct": True}
        told = await client.post("/feedback", body=body, cast_to=object)

    assert completion._request_id == (given or judged.records[0].request_id)
    assert told["request_id"] == completion._request_id  # type: ignore[index]


async def test_only_the_own_key(judged: Running) -> None:
    """Another key gets the same answer as for a decision that does not exist; no key gets none."""
    decision = await answered(judged)
    foreign = await send(judged, {"decision_id": decision, "correct": True}, "sk-other")
    unknown = await send(judged, {"decision_id": "0" * 24, "correct": True}, "sk-other")

    assert_error(foreign, 404, "decision_not_found")
    assert foreign.body == unknown.body
    assert_error(await send(judged, {"decision_id": decision, "correct": True}, None), 401, "invalid_api_key")
    assert (await send(judged, {"decision_id": decision, "correct": True})).status == 202


async def test_without_keys_everybody_may(backend: Backend, tmp_path: Path) -> None:
    """Without keys there is one kind of client."""
    settings = configuration(backend.url, evidence={"file": str(tmp_path / "evidence.db")})
    async with serving(settings) as running:
        record_decisions(running)
        decision = await answered(running, "none")
        assert (await send(running, {"decision_id": decision, "correct": True}, None)).status == 202


async def test_changing_ones_mind(judged: Running) -> None:
    """A contradiction is refused, unless it is meant; the metric counts what became of each."""
    decision = await answered(judged)
    body = {"decision_id": decision, "correct": True}
    answers = [
        await send(judged, body),
        await send(judged, body),
        await send(judged, body | {"correct": False}),
        await send(judged, body | {"correct": False, "replace": True}),
        await send(judged, body | {"decision_id": "unknown"}),
    ]

    assert [answer.status for answer in answers] == [202, 202, 409, 202, 404]
    assert_error(answers[2], 409, "feedback_contradicts")
    for outcome in ("taken", "repeated", "contradicted", "replaced", "unknown"):
        assert await sample(judged, "feedback_total", outcome=outcome) == 1


async def test_a_batch(judged: Running) -> None:
    """Each item has its own status. If one was not taken, the status of all is 207."""
    first, second = await answered(judged), await answered(judged)
    good = [{"decision_id": first, "correct": True}, {"decision_id": second, "score": 0.5}]
    taken = await send(judged, good)
    mixed = await send(judged, [good[0], good[1] | {"score": 1}, {"decision_id": "unknown", "correct": True}])

    assert taken.status == 202
    assert [each["outcome"] for each in taken.json["data"]] == ["taken", "taken"]
    assert mixed.status == 207
    data = mixed.json["data"]
    assert [each["status"] for each in data] == [202, 409, 404]
    assert [each["decision_id"] for each in data] == [first, second, "unknown"]
    assert [each["error"]["code"] for each in data[1:]] == ["feedback_contradicts", "decision_not_found"]


async def test_a_wrong_item_spoils_the_batch(judged: Running) -> None:
    """A batch that cannot be read is refused as a whole, with the item named."""
    decision = await answered(judged)
    answer = await send(
        judged, [{"decision_id": decision, "correct": True}, {"decision_id": "x", "score": 2}]
    )

    assert_error(answer, 400, "invalid_value")
    assert answer.json["error"]["param"] == "[1].score"
    assert await sample(judged, "feedback_total", outcome="taken") is None


async def test_a_large_body(judged: Running) -> None:
    """A body is bounded, however many items it has."""
    item = {"decision_id": "x", "correct": True, "comment": "x" * 2_000}
    assert_error(await send(judged, json.dumps([item] * 200).encode()), 413, "request_too_large")


async def test_without_a_store(running: Running) -> None:
    """The error says what the operator has to configure."""
    answer = await send(running, {"decision_id": "x", "correct": True}, None)

    assert_error(answer, 404, "evidence_off")
    assert "`evidence: {}`" in answer.json["error"]["message"]


@pytest.mark.parametrize("batch", [False, True])
async def test_a_store_that_is_away(backend: Backend, tmp_path: Path, batch: bool) -> None:
    """The client is told to come back, and requests are served as ever."""
    (tmp_path / "file").touch()
    settings = configuration(backend.url, evidence={"file": str(tmp_path / "file" / "evidence.db")})
    async with serving(settings) as running:
        item = {"decision_id": "x", "correct": True}
        answer = await send(running, [item, item] if batch else item, None)

        assert_error(answer, 503, "evidence_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert str(tmp_path) not in answer.body.decode()
        assert (await running.chat()).status == 200
        assert await sample(running, "feedback_total", outcome="unavailable") == 1 + batch
