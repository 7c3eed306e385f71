"""Rows for tests, and how to have them written and read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Table, func, select

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import open_store
from gateway.evidence.rows import CandidateRow, DecisionRow, FeedbackRow, MeasuredRow, Row, ShadowRow
from gateway.evidence.schema import STORED
from gateway.evidence.writer import EvidenceWriter

NOW = 1_790_000_000.0
DAY = 86_400.0
RUNGS = b'{"correct":[0.4,0.6,0.7],"tokens":[40.0,120.0,400.0]}'


def decision(number: int = 0, **changes: Any) -> DecisionRow:
    """A decision about a request, one per second from NOW on."""
    row: dict[str, Any] = {
        "id": f"dec-{number:08d}",
        "at": NOW + number,
        "request_id": f"req-{number}",
        "route": "/v1/chat/completions",
        "key": "alice",
        "team": "search",
        "conversation": None,
        "model": "tiny",
        "head": "general-1",
        "config": "c0ffee",
        "arm": "adaptive",
        "tier": "short",
        "reason": "head",
        "rule": None,
        "requested": "auto",
        "rung": 1,
        "wanted_rung": 2,
        "thinking": 256,
        "cap": None,
        "price": 0.02,
        "propensity": 1.0,
        "correct": 0.6,
        "tokens": 120.0,
        "rungs": RUNGS,
        "status": 200,
        "error": None,
        "stream": False,
        "cancelled": False,
        "prompt_tokens": 30,
        "completion_tokens": 110,
        "reasoning_tokens": 80,
        "finish_reason": "stop",
        "truncated": False,
        "duration": 1.5,
        "first_byte": 0.2,
    }
    return DecisionRow(**row | changes)


def feedback(number: int = 0, **changes: Any) -> FeedbackRow:
    row = {
        "decision": f"dec-{number:08d}",
        "at": NOW + number,
        "key": "alice",
        "source": "client",
        "score": 1.0,
    }
    return FeedbackRow(**row | changes)


def shadow(number: int = 0, **changes: Any) -> ShadowRow:
    row = {
        "id": f"pair-{number}",
        "decision": f"dec-{number:08d}",
        "at": NOW + number,
        "model": "tiny",
        "head": "general-1",
        "served_rung": 1,
        "shadow_rung": 2,
        "served_thinking": 256,
        "shadow_thinking": 4096,
        "served_tokens": 110,
        "shadow_tokens": 350,
        "grader": "agreement",
        "served_score": 1.0,
        "shadow_score": 1.0,
    }
    return ShadowRow(**row | changes)


def measured(number: int = 0, **changes: Any) -> MeasuredRow:
    row = {
        "run": "run-1",
        "at": NOW + number,
        "model": "tiny",
        "prompt_id": f"p{number}",
        "dataset": None,
        "rung": "short",
        "thinking": 256,
        "sample": 0,
        "correct": 1.0,
        "grader": "exact",
        "tokens": 100,
        "reasoning_tokens": 60,
        "finish_reason": "stop",
    }
    return MeasuredRow(**row | changes)


def candidate(number: int = 0, **changes: Any) -> CandidateRow:
    row = {
        "decision": f"dec-{number:08d}",
        "candidate": "learnt-1",
        "at": NOW + number,
        "model": "tiny",
        "rung": 0,
        "correct": 0.55,
        "tokens": 45.0,
        "served_correct": 0.6,
        "served_tokens": 118.0,
    }
    return CandidateRow(**row | changes)


def store_rows(settings: EvidenceSettings, rows: Iterable[Row]) -> EvidenceWriter:
    """Have a writer write the rows and end. It does no retention."""
    writer = EvidenceWriter(settings)
    writer._next_look = time.monotonic() + 3600
    writer.start()
    assert all([writer.put(row) for row in rows])
    writer.close(30)
    return writer


def stored(settings: EvidenceSettings, table: Table) -> int:
    """The number of rows in a table."""
    engine = open_store(settings)
    try:
        with engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(table)) or 0
    finally:
        engine.dispose()


def counts(settings: EvidenceSettings) -> dict[str, int]:
    """The number of rows in every table that has some."""
    found = {table.name: stored(settings, table) for table in STORED.values()}
    return {name: number for name, number in found.items() if number}


def eventually(holds: Callable[[], Any], seconds: float = 30) -> None:
    """Wait until it holds, however busy the machine is."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


async def eventually_async(holds: Callable[[], Any], seconds: float = 30) -> None:
    """The same on an event loop, which goes on meanwhile."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true"
        await asyncio.sleep(0.01)
