"""Decisions about answers of a real vLLM, and what clients say about them, in the store of evidence."""

import sqlite3
from pathlib import Path

from tests.serving import configuration, serving

from .conftest import TIERS, Puzzle
from .processes import Replica

DECISION = "x-thinkmeter-decision-id"


async def test_judged_answers(replicas: list[Replica], tmp_path: Path, easy: Puzzle, hard: Puzzle) -> None:
    """A whole answer and a stream are judged by their decision ids, and both rows have vLLM's counts."""
    file = tmp_path / "evidence.db"
    settings = configuration(
        *(replica.url for replica in replicas),
        model={"tiers": TIERS},
        evidence={"file": str(file)},
        timeouts={"first_byte": 600, "idle": 600},
    )
    async with serving(settings) as running, running.client() as client:
        raw = client.chat.completions.with_raw_response
        whole = await raw.create(model="tiny:direct", messages=easy.messages, temperature=0)
        used = whole.parse().usage
        assert used is not None
        stream = await raw.create(
            model="tiny:long",
            messages=hard.messages,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream.parse()]
        spent = chunks[-1].usage
        assert spent is not None
        judged = {whole.headers[DECISION]: 1.0, stream.headers[DECISION]: 0.25}
        for decision, score in judged.items():
            sent = {"decision_id": decision, "score": score, "source": "grader"}
            async with running.http.post(f"{running.url}/v1/feedback", json=sent) as response:
                assert response.status == 202, await response.text()

    with sqlite3.connect(file) as connection:
        query = (
            "SELECT d.id, f.score, d.tier, d.prompt_tokens, d.completion_tokens, d.reasoning_tokens, d.stream"
            " FROM decisions d JOIN feedback f ON f.decision = d.id"
        )
        rows = {row[0]: row[1:] for row in connection.execute(query)}
    first, second = (rows[decision] for decision in judged)
    assert first[:4] == (1.0, "direct", used.prompt_tokens, used.completion_tokens)
    assert second[:4] == (0.25, "long", spent.prompt_tokens, spent.completion_tokens)
    assert second[4] > 0
    assert (first[5], second[5]) == (0, 1)
