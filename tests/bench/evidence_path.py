"""
What evidence costs each request on the event loop: `python -m tests.bench.evidence_path`.

The prompts are 100 words of the README. Times are CPU times of the thread, the lowest of several rounds over
all prompts, in microseconds per request. The last lines are what the writer's thread does with a row.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gateway.config.evidence import EvidenceSettings
from gateway.config.models import Replica
from gateway.evidence.database import open_store, placeholder, writing
from gateway.evidence.recording import DecidedRequest, Recorder
from gateway.evidence.redacting import Keeping
from gateway.evidence.shadows.load import PoolLoad
from gateway.evidence.statements import statements
from gateway.evidence.writer import EvidenceWriter
from gateway.openai_api.usage import TokenUsage
from gateway.routing.decision import Decision, Rungs
from gateway.routing.holdout import Holdout, conversation_unit
from gateway.telemetry.record import AskedPrompt, Record
from gateway.upstream.pool import Backend, Pool
from tests.bench.machine import describe
from tests.bench.targets import ROOT

REQUESTS, ROUNDS, RUNGS = 4_000, 7, 13
BATCH = 1_000


def lowest(call: Callable[[Any], object], arguments: Sequence[Any], before: Callable[[], None]) -> float:
    """The lowest CPU time per call of all rounds, in microseconds, less that of calling nothing."""
    found = []
    for _ in range(ROUNDS):
        before()
        began = time.thread_time()
        for argument in arguments:
            call(argument)
        middle = time.thread_time()
        for argument in arguments:
            _nothing(argument)
        found.append(2 * middle - began - time.thread_time())
    return min(found) / len(arguments) * 1e6


def _nothing(argument: object) -> None:
    pass


def decided(number: int) -> Decision:
    """A decision among thirteen rungs."""
    drawn = random.Random(number)
    right = tuple(drawn.random() for _ in range(RUNGS))
    tokens = tuple(1_000 * drawn.random() for _ in range(RUNGS))
    return Decision(
        *(f"{number:024x}", "fake", "long", "price", None, "adaptive", ("direct", "long"), 1024, 2048),
        *(0.5, {"direct": right[0]}, {"direct": tokens[0]}, 0.05, 1.0, {"head": "general", "config": "c0"}),
        *(5, right[5], tokens[5], Rungs(tuple(range(RUNGS)), right, tokens, (0, 12), 0, 12)),
    )


def main() -> None:
    """Measure and print."""
    words = (ROOT / "README.md").read_text().split()
    drawn = random.Random(0)
    prompts = [" ".join(drawn.choices(words, k=100)) for _ in range(REQUESTS)]
    print(describe())
    with tempfile.TemporaryDirectory() as name:
        settings = EvidenceSettings(file=str(Path(name) / "evidence.db"))
        writer = EvidenceWriter(settings)
        keeping = Keeping(settings, writer.dropped)
        recorder = Recorder(writer.put, keeping)
        waiting: list[Any] = []
        records = []
        for number, prompt in enumerate(prompts):
            record = Record(request_id=f"req-{number}", route="/v1/chat/completions", started_at=0.0)
            record.decision, record.usage, record.key = decided(number), TokenUsage(), "bench"
            records.append((record, prompt))

        def hand_over(asked: tuple[Record, str]) -> None:
            record, prompt = asked
            record.asked = AskedPrompt(prompt, (prompt,), None, None)
            recorder.record(record)

        def forget() -> None:
            writer._queue.clear()
            writer._put_characters = 0

        print(f"hand a row over        {lowest(hand_over, records, forget):.2f}")
        holdout, pool = Holdout(0.05, "conversation", "long"), _pool()
        place = lowest(lambda p: holdout.arm(conversation_unit("bench", (p,))), prompts, waiting.clear)
        print(f"put into an arm        {place:.2f}")
        load = PoolLoad()
        print(
            f"note the load (shadow) {lowest(lambda _: load.note(pool, 0, 1.0), prompts, waiting.clear):.2f}"
        )
        unmade = [row for row in writer._queue if isinstance(row, DecidedRequest)]
        made = lowest(lambda row: waiting.append(row.made(b"secret")), unmade, waiting.clear)
        store = open_store(settings)
        began = time.thread_time()
        for at in range(0, len(waiting), BATCH):
            with writing(store) as connection:
                for statement, values in statements(waiting[at : at + BATCH], placeholder(store)):
                    connection.exec_driver_sql(statement, values)
        insert = (time.thread_time() - began) / len(waiting) * 1e6
        print(f"writer's thread: make a row {made:.1f}, insert it {insert:.1f}")


def _pool() -> Pool:
    return Pool("fake", "fake", [Backend("a", Replica.model_validate({"url": "http://127.0.0.1:1"}))])


if __name__ == "__main__":
    main()
