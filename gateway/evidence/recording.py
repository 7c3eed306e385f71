"""Makes rows of requests that were decided, in the writer's thread. The event loop only hands them over."""

from __future__ import annotations

from typing import Protocol

import msgspec
from msgspec import Struct

from gateway.evidence.features import encode_features
from gateway.evidence.heads.beside import Candidate, asked_beside
from gateway.evidence.redacting import Keeping
from gateway.evidence.rows import DecisionRow, UnmadeRow, pseudonym
from gateway.openai_api.usage import TokenUsage
from gateway.routing.decision import Decision
from gateway.routing.holdout import conversation_unit
from gateway.telemetry.record import Record
from router_model.encoders.ngrams import END, START, part_read

_OWN_SIZE = 1_024  # characters for which a row counts beside its texts, so that none is free
_OUTSIDE = "none"
"""The arm of a request that is no part of a comparison."""


class Recorder:
    """A sink of finished requests that has a row written for each that was decided."""

    def __init__(self, put: Put, keeping: Keeping) -> None:
        """put: takes a row and never waits."""
        self._put = put
        self._keeping = keeping
        self._whole = keeping.prompts
        self.candidate: Candidate | None = None
        """The head that is asked beside the one that serves."""

    def record(self, record: Record) -> None:
        """Have a row written, if the request was decided. Costs a few microseconds."""
        asked, decision = record.asked, record.decision
        if asked is None or decision is None:
            return
        record.asked = None  # the console keeps the record
        prompt, length, error = asked.prompt, len(asked.prompt), record.error
        if not self._whole and length > START + END:
            prompt = part_read(prompt)
        self._put(
            DecidedRequest(
                self._keeping,
                decision,
                record.usage,
                record.started_at,
                record.request_id,
                record.route,
                record.key,
                asked.team,
                asked.unit,
                asked.opening,
                prompt,
                length,
                record.status,
                None if error is None else error.code,
                record.stream,
                record.cancelled,
                record.duration,
                record.first_byte,
            )
        )
        if beside := asked_beside(self.candidate, decision, record.started_at, prompt, length):
            self._put(beside)


class Put(Protocol):
    """Takes a row to be made and written; False if it was dropped."""

    def __call__(self, row: UnmadeRow) -> bool: ...


class DecidedRequest(Struct, gc=False):
    """What a row is made from, let go of all else that belonged to the request."""

    keeping: Keeping
    decision: Decision
    usage: TokenUsage
    at: float
    request_id: str
    route: str
    key: str | None
    team: str | None
    unit: str | None
    opening: tuple[str, ...]
    prompt: str
    """All of it if prompts are kept, else the part that the encoder reads."""
    length: int
    """Characters of the whole prompt."""
    status: int
    error: str | None
    stream: bool
    cancelled: bool
    duration: float
    first_byte: float | None

    @property
    def characters(self) -> int:
        """What it takes of the memory for rows that wait."""
        return _OWN_SIZE + len(self.prompt) + sum(map(len, self.opening))

    def made(self, secret: bytes) -> DecisionRow:
        """The row. secret: the key of the store's pseudonyms."""
        decision, usage = self.decision, self.usage
        unit = self.unit or conversation_unit(self.key, self.opening or (self.prompt,))
        part = part_read(self.prompt) if self.keeping.prompts else self.prompt
        return DecisionRow(
            id=decision.id,
            at=self.at,
            request_id=self.request_id,
            route=self.route,
            key=self.key,
            team=self.team,
            conversation=pseudonym(secret, unit),
            model=decision.model,
            head=decision.versions["head"],
            config=decision.versions["config"],
            arm=decision.arm or _OUTSIDE,
            tier=decision.tier,
            reason=decision.reason,
            rule=decision.rule,
            requested=decision.requested,
            rung=decision.rung,
            wanted_rung=decision.wanted_rung,
            thinking=decision.thinking,
            cap=decision.cap,
            price=decision.price,
            propensity=decision.propensity,
            correct=decision.rung_correct,
            tokens=decision.rung_tokens,
            rungs=msgspec.json.encode(decision.rungs),
            status=self.status,
            error=self.error,
            stream=self.stream,
            cancelled=self.cancelled,
            prompt_tokens=usage.prompt,
            completion_tokens=usage.completion,
            reasoning_tokens=usage.reasoning,
            finish_reason=usage.finish_reason,
            truncated=usage.truncated,
            duration=self.duration,
            first_byte=self.first_byte,
            features=encode_features(part, self.length),
            prompt=self.keeping.text(self.prompt),
        )
