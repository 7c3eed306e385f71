"""What the console shows: recent decisions and sums, sent to the page as server-sent events."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import msgspec

from gateway import __version__
from gateway.console.explain import explain
from gateway.console.others import OtherWorkers, Question, Report
from gateway.openai_api import requests as protocol
from gateway.snapshot import Snapshot
from gateway.telemetry.record import Record
from router_model.allocation import value

KEPT_DECISIONS = 200
KEPT_SECONDS = 600
_POLL = 0.2  # seconds between two checks for new decisions


@dataclass(slots=True)
class Sums:
    """Sums over requests, since the start or within one second."""

    requests: int = 0
    errors: int = 0
    tokens: int = 0
    """Completion tokens."""
    tiers: dict[str, int] = field(default_factory=dict)
    """Requests by tier."""
    right: float = 0.0
    """Right answers that the head expects, over the requests in `chosen`."""
    right_longest: float = 0.0
    """Right answers that the head expects if each of these had got its longest eligible rung."""
    chosen: int = 0
    """Successful requests with more than one eligible rung and known token usage."""
    comparable: int = 0
    """Completion tokens of the requests in `chosen`."""
    saved: float = 0.0
    """Tokens that the head expects of the longest eligible rung, minus the tokens used; may be negative."""

    def add(self, record: Record) -> None:
        """Count one finished request, if a tier was decided for it."""
        decision, used = record.decision, record.usage.completion
        if decision is None:
            return
        self.requests += 1
        self.errors += record.error is not None
        self.tokens += used or 0
        self.tiers[decision.tier] = self.tiers.get(decision.tier, 0) + 1
        rungs = decision.rungs
        if used is None or record.error or rungs.lowest == rungs.highest:
            return
        self.chosen += 1
        self.right += decision.rung_correct
        self.right_longest += rungs.correct[rungs.highest]
        self.comparable += used
        self.saved += rungs.tokens[rungs.highest] * record.choices - used

    def merge(self, other: Sums) -> None:
        """Add the sums over other requests."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for tier, count in other.tiers.items():
            self.tiers[tier] = self.tiers.get(tier, 0) + count


_NUMBERS = tuple(each.name for each in fields(Sums) if each.name != "tiers")


@dataclass(slots=True)
class Second:
    """The sums of one second."""

    at: int
    """Unix time."""
    sums: Sums = field(default_factory=Sums)
    price: float = 0.0
    """Price of the last decision in this second."""


class Console:
    """Keeps the last decisions and the sums of the last seconds in memory, but no prompts or answers."""

    def __init__(
        self,
        current: Callable[[], Snapshot],
        *,
        draining: Callable[[], bool] = lambda: False,
        feedback: bool = False,
        budgets: Callable[[], Iterable[dict[str, Any]]] = tuple,
        read_budgets: Callable[[], Awaitable[None]] | None = None,
        note_finished: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """current: returns the snapshot in use. feedback: the gateway takes some.

        budgets: returns the state of every budget window, as `BudgetOverview.console_rows` does.
        read_budgets: updates that state; called about once per second, however many pages are open.
        note_finished: remembers the finished requests that wait for it.
        """
        self._note_finished = note_finished
        self._current = current
        self._draining = draining
        self._feedback = feedback
        self.budgets = budgets
        self._read_budgets = read_budgets
        self._clock = clock
        self._since = clock()
        self._decisions: deque[Record] = deque(maxlen=KEPT_DECISIONS)
        self._seconds: deque[Second] = deque(maxlen=KEPT_SECONDS)
        self._count = 0
        self._past = Sums()
        """The sums since the start, without those of the latest second."""
        self._served: tuple[Snapshot | None, bool] = None, False
        self._read_at = 0.0
        self._shared = 0, b""
        self._id = secrets.token_hex(6)
        self._others: OtherWorkers | None = None

    def join(self, ask: Callable[[bytes], Awaitable[list[bytes]]]) -> None:
        """Show what the other workers do as well. ask: passes them a question, which `report` answers."""
        self._others = OtherWorkers(ask, KEPT_DECISIONS)

    def remember(self, record: Record) -> None:
        """Keep one finished request, if the console is served."""
        if record.decision is None or not self._is_served():
            return
        now = int(self._clock())
        if not self._seconds or self._seconds[-1].at != now:
            if self._seconds:
                self._past.merge(self._seconds[-1].sums)
            self._seconds.append(Second(now))
        second = self._seconds[-1]
        second.price = record.decision.price
        second.sums.add(record)
        self._decisions.append(record)
        self._count += 1

    def _is_served(self) -> bool:
        """Whether the console is served, looked up once per snapshot."""
        current = self._current()
        if self._served[0] is not current:
            self._served = current, current.settings.serves_console
        return self._served[1]

    def _sums(self) -> Sums:
        """The sums since the start."""
        sums = Sums()
        sums.merge(self._past)
        if self._seconds:
            sums.merge(self._seconds[-1].sums)
        return sums

    def snapshot(self, since: int = 0) -> dict[str, Any]:
        """Everything except the decisions; of the seconds, only those from Unix time `since` on."""
        own = self._own(since)
        return self._others.merged(own, since) if self._others else own

    def _own(self, since: int) -> dict[str, Any]:
        self._note_finished()
        current = self._current()
        now = time.monotonic()
        return {
            "now": self._clock(),
            "since": self._since,
            "version": __version__,
            "versions": current.router.versions,
            "price": current.settings.price,
            "keys": bool(current.settings.keys),
            "feedback": self._feedback,
            "models": {
                name: dict(zip(target.ladder.names, _lengths(target.ladder.tiers), strict=True))
                for name, target in current.router.targets.items()
                if target.pin is None
            },
            "evidence": {name: found._asdict() for name, found in current.evidence.items()},
            "backends": [
                {
                    "model": pool.model,
                    "name": backend.name,
                    "healthy": backend.healthy,
                    "cause": backend.cause.sentence if backend.cause else None,
                    "breaker": backend.breaker.state(now),
                    "in_flight": backend.in_flight,
                    "context": backend.context,
                    "refused": backend.refused.names(now),
                    "lost_mark": backend.lost_mark,
                }
                for pool, backend in current.backends()
            ],
            "budgets": list(self.budgets()),
            "sums": asdict(self._sums()),
            "seconds": [asdict(second) for second in self._seconds if second.at >= since],
        }

    def decisions(self, seen: int) -> list[dict[str, Any]]:
        """The decisions after the first `seen`, oldest first, as far as they are still kept."""
        self._note_finished()
        fresh = min(self._count - seen, len(self._decisions))
        return [_shown(record) for record in list(self._decisions)[-fresh:]] if fresh else []

    def report(self, asked: bytes) -> bytes:
        """Answer the question of another worker."""
        question = msgspec.json.decode(asked, type=Question)
        fresh = self.decisions(question.seen.get(self._id, 0))
        report = Report(self._id, self._count, fresh, self._own(question.since))
        return protocol.encode(report)

    async def events(self) -> AsyncIterator[bytes]:
        """The event stream: a snapshot every second, and decisions as requests end.

        The stream ends when the gateway drains, so that it does not delay the shutdown.
        """
        await self._refresh(whole=True)
        yield b"retry: 2000\n\n" + _event("snapshot", self.snapshot())
        seen, others_seen, beat = 0, 0, self._clock()
        while not self._draining():
            fresh, seen = self.decisions(seen), self._count
            if self._others:
                fresh += self._others.decisions(others_seen)
                others_seen = self._others.count
            if fresh:
                yield _event("decisions", sorted(fresh, key=lambda shown: float(shown["at"])))
            if self._clock() - beat >= 1:
                beat = self._clock()
                await self._refresh()
                yield self._latest(int(beat))
            await asyncio.sleep(_POLL)

    def _latest(self, second: int) -> bytes:
        """The event of this second, made once for all pages."""
        if self._shared[0] != second:
            self._shared = second, _event("snapshot", self.snapshot(second - 3))
        return self._shared[1]

    async def _refresh(self, *, whole: bool = False) -> None:
        """Read the budgets and ask the other workers, at most about once per second.

        whole: ask them for all seconds that they keep, and at once.
        """
        now = self._clock()
        due = now - self._read_at >= 0.9
        if due:
            self._read_at = now
            if self._read_budgets:
                await self._read_budgets()
        if self._others and (due or whole):
            await self._others.refresh(0 if whole else int(now) - 3)


def _lengths(tiers: Iterable[Any]) -> list[dict[str, int | None]]:
    return [{"thinking": tier.thinking, "answer": tier.answer} for tier in tiers]


def _event(name: str, body: object) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + protocol.encode(body) + b"\n\n"


def _shown(record: Record) -> dict[str, Any]:
    """One request as the page shows it: numbers and IDs, without any text of the client or the backend."""
    decision, usage = record.decision, record.usage
    if decision is None:
        raise ValueError("only requests with a decision are kept")
    return {
        "at": record.started_at,
        "request_id": record.request_id,
        "key": record.key,
        "status": record.status,
        "error": record.error.code if record.error else None,
        "cancelled": record.cancelled,
        "truncated": record.usage.truncated,
        "backend": record.backend,
        "duration": record.duration,
        "first_byte": record.first_byte,
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "reasoning_tokens": usage.reasoning,
        "decision": decision,
        "value": {
            tier: value(correct, decision.tokens[tier], decision.price)
            for tier, correct in decision.correct.items()
        },
        "rung_value": value(decision.rung_correct, decision.rung_tokens, decision.price),
        "explanation": explain(decision),
    }
