"""The store of evidence as a place of prompts and of results."""

from __future__ import annotations

import time
from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import EvidenceUnavailable, existing_store
from gateway.evidence.measuring.prompts import MeasuredPrompt, PromptsError, merged_prompts, prompt_of
from gateway.evidence.rows import MeasuredRow
from gateway.evidence.schema import decisions
from gateway.evidence.writer import EvidenceWriter

_NEWEST = 20_000  # prompts to draw from
_FULL = 0.5  # share of the queue; the writer needs room for a batch
_PATIENCE = 60.0  # seconds


def prompts_of_store(settings: EvidenceSettings | None, model: str) -> list[MeasuredPrompt]:
    """The newest prompts that the store has of a model, each once. They have no reference answers.

    Raises: PromptsError.
    """
    if settings is None:
        raise PromptsError("store: the configuration has no `evidence`, so there is no store")
    if not settings.prompts:
        raise PromptsError(
            "store: it holds no prompts; they are kept from when `evidence: {prompts: true}` is set"
        )
    wanted = (
        select(decisions.c.id, decisions.c.prompt)
        .where(decisions.c.model == model, decisions.c.prompt.is_not(None), decisions.c.prompt != "")
        .order_by(decisions.c.at.desc())
        .limit(_NEWEST)
    )
    try:
        engine = existing_store(settings)
        with engine.connect() as connection:
            found = connection.execute(wanted).all()
        engine.dispose()
    except (EvidenceUnavailable, SQLAlchemyError) as error:
        raise PromptsError(f"store: {error}") from None
    prompts, _ = merged_prompts(
        prompt_of({"id": name, "prompt": text}, f"store: {name}") for name, text in found if text.strip()
    )
    if not prompts:
        raise PromptsError(f"store: no prompts of {model} yet")
    return prompts


def store_rows(settings: EvidenceSettings, rows: Iterable[MeasuredRow]) -> tuple[int, str | None]:
    """Write the rows of a run. Those that are there already are written again. It can take long.

    Returns how many were written, and why not all were.
    """
    writer = EvidenceWriter(settings)
    writer.start()
    until = time.monotonic() + _PATIENCE
    while not writer.ready(0.1) and time.monotonic() < until and not writer.failing:
        pass
    for row in rows:
        until = time.monotonic() + _PATIENCE
        while writer.waiting > _FULL * settings.queue and time.monotonic() < until:
            time.sleep(0.01)
        if writer.failing or not writer.put(row):
            break
    cause = writer.failing
    writer.close(_PATIENCE)
    lost = sum(writer.dropped.values())
    return sum(writer.written.values()), cause or (f"{lost} rows were dropped" if lost else None)
