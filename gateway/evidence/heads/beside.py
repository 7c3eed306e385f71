"""A candidate head decides beside the one that serves. It acts on nothing; both are in the record. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from gateway.evidence.features import decode_features, encode_features
from gateway.evidence.rows import CandidateRow
from gateway.routing.decision import Decision
from router_model.allocation import best_tier
from router_model.encoders.ngrams import END, START, part_read
from router_model.head import Head
from router_model.predictor import Prediction, TierLength

_DRAWN = 8  # hexadecimal digits of a decision's random id that draw it
_OWN_SIZE = 512  # characters for which a row counts beside its prompt


class Candidate(Struct, frozen=True):
    """A head that is tried, for the models that it knows."""

    head: Head
    """With the hashed encoder: an embedding would have to be fetched."""
    ladders: Mapping[str, tuple[TierLength, ...]]
    """The rungs of each model that it is asked about."""
    share: float
    """Of the decisions, drawn by their ids."""

    def is_asked(self, decision: Decision) -> bool:
        """Whether it decides about this request too. Costs about a microsecond."""
        ladder = self.ladders.get(decision.model)
        return (
            ladder is not None
            and len(ladder) == len(decision.rungs.thinking)
            and decision.rungs.lowest < decision.rungs.highest
            and int(decision.id[:_DRAWN], 16) < self.share * 16**_DRAWN
        )

    def predicted(self, model: str, prompt: str, length: int) -> Prediction:
        """Its estimates for all rungs. prompt: the whole, or the part of it that the encoder reads.

        length: characters of the whole prompt.
        """
        ladder = self.ladders[model]
        if length <= START + END:
            return self.head.predict(prompt, model, ladder)
        return self.head.predict_features(decode_features(encode_features(prompt, length)), model, ladder)


class UndecidedBeside(Struct, gc=False):
    """What the row of a candidate is made from, in the writer's thread."""

    candidate: Candidate
    decision: Decision
    at: float
    prompt: str
    """All of it, or the part that the encoder reads."""
    length: int
    """Characters of the whole prompt."""

    @property
    def characters(self) -> int:
        """What it takes of the memory for rows that wait."""
        return _OWN_SIZE + len(self.prompt)

    def made(self, _: bytes) -> CandidateRow:
        """The row: the rung of highest value for the candidate, at the same price and in the same bounds."""
        decision, rungs = self.decision, self.decision.rungs
        found = self.candidate.predicted(decision.model, self.prompt, self.length)
        eligible = range(rungs.lowest, rungs.highest + 1)
        rung = best_tier(found.correct, found.tokens, decision.price, eligible)
        return CandidateRow(
            decision=decision.id,
            candidate=self.candidate.head.version,
            at=self.at,
            model=decision.model,
            rung=rung,
            correct=found.correct[rung],
            tokens=found.tokens[rung],
            served_correct=found.correct[decision.rung],
            served_tokens=found.tokens[decision.rung],
        )


def asked_beside(
    candidate: Candidate | None, decision: Decision, at: float, prompt: str, length: int
) -> UndecidedBeside | None:
    """What to have a row made from; None if the candidate is not asked about this request."""
    if candidate is None or not candidate.is_asked(decision):
        return None
    part = part_read(prompt) if len(prompt) == length else prompt
    return UndecidedBeside(candidate, decision, at, part, length)
