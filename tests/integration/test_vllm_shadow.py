"""Shadow pairs against vLLM: the client's answer, and that of a longer thought."""

import sqlite3
from pathlib import Path

from tests.http.shadowing import outcomes
from tests.serving import configuration, serving

from .conftest import TIERS, Puzzle
from .processes import Replica


async def test_pair(replicas: list[Replica], tmp_path: Path, easy: Puzzle) -> None:
    """A whole answer and a stream are each asked again at `long`, and the row has both lengths."""
    file = tmp_path / "evidence.db"
    settings = configuration(
        *(replica.url for replica in replicas),
        model={"tiers": TIERS},
        price=1000,
        redis={"directory": str(tmp_path)},
        evidence={"file": str(file)},
        shadow={"share": 1, "against": "long", "budget": {"tokens": 1_000_000}},
        timeouts={"first_byte": 600, "idle": 600},
    )
    async with serving(settings) as running, running.client() as client:
        fields = {"model": "tiny", "messages": easy.messages, "temperature": 0}
        whole = await client.chat.completions.create(**fields)
        await outcomes(running, 1, seconds=300)
        stream = await client.chat.completions.create(**fields, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        assert await outcomes(running, 2, seconds=300) == {"paired": 2}
        assert text == whole.choices[0].message.content
        used = whole.usage.completion_tokens if whole.usage else None

    with sqlite3.connect(file) as connection:
        query = "SELECT served_tokens, served_thinking, shadow_thinking, shadow_score, note FROM shadow_pairs"
        rows = connection.execute(query).fetchall()
    assert [row[0] for row in rows] == [used, used]
    assert {row[1:] for row in rows} == {(0, TIERS["long"]["thinking"], 1, None)}
