"""The rows of the evidence store, as the gateway makes them. No I/O.

Times are Unix times in seconds. Names of people are hashes, see `pseudonym`.
"""

from __future__ import annotations

import hashlib
from typing import Any, Protocol, TypeAlias

from msgspec import Struct


class DecisionRow(Struct, gc=False):
    """One request that was decided, and what became of it."""

    id: str
    """The decision's id, which clients get in `x-thinkmeter-decision-id`."""
    at: float
    request_id: str
    route: str
    key: str | None
    team: str | None
    conversation: str | None
    """A pseudonym of what belongs together, for the hold-out and for deletion."""
    model: str
    head: str
    """The version of the head that decided."""
    config: str
    arm: str
    """`adaptive`, or `holdout` for those that get the fixed policy."""
    tier: str
    reason: str
    rule: str | None
    requested: str
    rung: int
    wanted_rung: int | None
    thinking: int
    cap: int | None
    price: float
    propensity: float
    correct: float
    """The head's P(right) at the rung."""
    tokens: float
    """Completion tokens that it expected there."""
    rungs: bytes
    """The estimates of all rungs: JSON of `Rungs`."""
    status: int
    error: str | None
    stream: bool
    cancelled: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None
    finish_reason: str | None
    truncated: bool
    duration: float
    first_byte: float | None
    features: bytes | None = None
    """What a head reads from the prompt, see `gateway.evidence.features`."""
    prompt: str | None = None


class FeedbackRow(Struct):
    """What somebody said about an answer. One row per decision and source; a later one replaces it."""

    decision: str
    at: float
    key: str | None
    source: str
    score: float
    """0 is wrong, 1 is right."""
    comment: str | None = None


class ShadowRow(Struct):
    """A request that was asked again at another rung, and how the two answers compare."""

    id: str
    decision: str
    at: float
    model: str
    head: str
    served_rung: int
    shadow_rung: int
    served_thinking: int
    shadow_thinking: int
    served_tokens: int | None
    shadow_tokens: int | None
    grader: str
    served_score: float | None
    """Of the answer that the client got: 1 right or preferred, 0 wrong, 0.5 a tie; None if not graded."""
    shadow_score: float | None
    flipped: bool | None = None
    """A judge changed its mind when the order was changed."""
    note: str | None = None
    """Why there is no grade."""


class MeasuredRow(Struct):
    """One answer of `thinkmeter measure`."""

    run: str
    at: float
    model: str
    prompt_id: str
    dataset: str | None
    rung: str
    """The name of the tier, or of the rung."""
    thinking: int
    sample: int
    correct: float | None
    """None if the answer could not be graded."""
    grader: str
    tokens: int | None
    reasoning_tokens: int | None
    finish_reason: str | None
    note: str | None = None
    features: bytes | None = None
    prompt: str | None = None


class CandidateRow(Struct, gc=False):
    """What a candidate head would have decided for a request that another head decided."""

    decision: str
    candidate: str
    """The version of the candidate."""
    at: float
    """When the request began."""
    model: str
    rung: int
    """What it would have chosen, before a budget or the context shortened it."""
    correct: float
    """Its P(right) at that rung."""
    tokens: float
    """Completion tokens that it expects there."""
    served_correct: float
    """Its P(right) at the rung that was served."""
    served_tokens: float


Row: TypeAlias = DecisionRow | FeedbackRow | ShadowRow | MeasuredRow | CandidateRow


class HeadRow(Struct):
    """A head in the store."""

    version: str
    """Its name and the start of its digest, as decisions name it."""
    made_at: float
    models: dict[str, list[str]]
    """The tiers that it was measured at, by model."""
    state: str
    """`candidate`, `promoted` or `retired`."""
    verdict: dict[str, Any] | None
    """What the gate said about it; None if nobody has judged it."""
    size: int
    """Bytes of the artefact."""


class PromotionRow(Struct, frozen=True):
    """A line of the log of promotions. It is only ever added to."""

    number: int
    at: float
    action: str
    """`promote` or `rollback`."""
    head: str | None
    """The version that decides from now on; None for the head of the configuration."""
    previous: str | None
    """The version that decided before."""
    by: str
    why: str


class UnmadeRow(Protocol):
    """What a row is made from in the writer's thread, because making it takes long."""

    @property
    def characters(self) -> int:
        """What it takes of the memory for rows that wait."""

    def made(self, secret: bytes) -> Row:
        """The row. secret: the key of the store's pseudonyms."""


def pseudonym(secret: bytes, name: str) -> str:
    """A name that stands for `name` in one store, and cannot be traced back without its secret.

    Keyed BLAKE2b (RFC 7693). secret: 32 bytes that belong to the store.
    """
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), key=secret, digest_size=16).hexdigest()


def stored_names(secret: bytes, name: str) -> tuple[str, str]:
    """How the store may have a name that somebody gives: plain, also if it is a pseudonym, or hashed."""
    return name, pseudonym(secret, name)
