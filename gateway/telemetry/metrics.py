"""All Prometheus metrics of a gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Gauge, Info, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from gateway import __version__
from gateway.openai_api.usage import SLACK
from gateway.telemetry.budget_metrics import BudgetMetrics
from gateway.telemetry.collectors import DroppedLines, PriorShare, Replicas
from gateway.telemetry.evidence_metrics import EvidenceMetrics
from gateway.telemetry.record import Record
from gateway.telemetry.series import Count, Counts, Spread, Spreads
from gateway.telemetry.shadow_metrics import ShadowMetrics
from gateway.upstream.pool import Backend, Pool
from router_model.predictor import Evidence

_OVERHEAD = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
_DURATION = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144)
_UNIT = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


class _Decided(NamedTuple):
    """The series that requests with the same decision count in."""

    decisions: Count
    difficulty: Spread
    predicted: Count
    right: Count
    longest: Count


class _Kind(NamedTuple):
    """The series that requests of one kind count in. Found once, because finding them costs more."""

    requests: Count
    duration: Spread
    overhead: Spread
    first_token: Spread
    tokens: tuple[Count, Count, Count, Count]
    """Of the prompt, the completion, its reasoning, and the cached ones."""
    completion: Spread
    decided: _Decided | None


class Metrics:
    """All metrics of one gateway, in their own registry. Labels take values from closed sets only."""

    note_finished: Callable[[], None] = staticmethod(lambda: None)
    """Counts the finished requests that wait to be counted. It is called before the metrics are written."""

    def __init__(
        self,
        backends: Callable[[], Iterable[tuple[Pool, Backend]]],
        evidence: Callable[[], Mapping[str, Evidence]] = dict,
        dropped_lines: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """backends, evidence: return those of the snapshot in use.

        dropped_lines: returns how many log lines were lost, by stream.
        """
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, labels: str) -> Counts:
            return Counts(registry, f"thinkmeter_{name}", text, labels.split())

        def histogram(name: str, text: str, bounds: tuple[float, ...], labels: str = "") -> Spreads:
            return Spreads(registry, f"thinkmeter_{name}", text, bounds, labels.split())

        self.requests = counter("requests", "Completed requests.", "route model tier status")
        self.errors = counter("errors", "Requests that ended in an error, by its code.", "code")
        self.decisions = counter("decisions", "Tier decisions.", "model tier reason")
        self.tokens = counter("tokens", "Tokens, by type.", "model tier type")
        self.usage = counter("usage", "Responses, by the source of their token usage.", "model source")
        self._add_losses(counter)
        text = "Responses under a thinking budget, by whether the backend honoured it."
        self.budget_held = counter("thinking_budget", text, "model backend outcome")
        self.cancelled = counter("upstream_cancelled", "Generations stopped before their end.", "model cause")
        self.retries = counter("upstream_retries", "Further attempts before the first byte.", "model")
        self.reloads = counter("config_reloads", "Reloads of the configuration.", "result")
        self.in_flight = Count()
        running = Gauge("thinkmeter_requests_in_flight", "Requests in progress.", registry=registry)
        running.set_function(lambda: self.in_flight.value)
        self.connections = Gauge("thinkmeter_connections", "Open client connections.", registry=registry)
        text = "Client connections closed because a limit was reached."
        self.refused_connections = counter("connections_refused", text, "").labels()
        text = "Duration of whole requests."
        self.duration = histogram("request_duration_seconds", text, _DURATION, "route tier")
        text = "The gateway's share of the time to the first byte of a response."
        self.overhead = histogram("overhead_seconds", text, _OVERHEAD, "route")
        text = "Time to the first byte of a streamed response."
        self.first_token = histogram("time_to_first_token_seconds", text, _DURATION, "model tier")
        text = "Time for rules, features, head and choice, per request."
        self.deciding = histogram("decision_seconds", text, _OVERHEAD).labels()
        self.difficulty = histogram("difficulty", "Estimated difficulty of prompts.", _UNIT, "model")
        text = "Completion tokens per response, reasoning included."
        self.completion = histogram("completion_tokens", text, _TOKENS, "model tier")
        text = "Completion tokens that the head expected for the responses."
        self.predicted = counter("predicted_tokens", text, "model tier")
        text = "Responses that the head expected to be right."
        self.right = counter("predicted_correct", text, "model tier")
        text = "Completion tokens that the head expected at the longest eligible rung."
        self.longest = counter("longest_tokens", text, "model")
        Info("thinkmeter_build", "The running version.", registry=registry).info({"version": __version__})
        ProcessCollector(registry=registry)
        registry.register(Replicas(backends))
        registry.register(PriorShare(evidence))
        registry.register(DroppedLines(dropped_lines))
        self.budget, self.shadow = BudgetMetrics(registry), ShadowMetrics(registry)
        self.evidence = EvidenceMetrics(registry)
        self._kind = cache(self._find_kind)

    def _add_losses(self, counter: Callable[[str, str, str], Counts]) -> None:
        """Add the counters of responses that lack their answer, their counts or a place for their thought."""
        text = "Responses that ended before their first visible character: at a limit, or inside the thought."
        self.truncated = counter("truncated_responses", text, "model tier")
        text = "Token counts of backends that were missing or could not be read."
        self.uncounted = counter("uncounted", text, "model what")
        text = "Responses with a thought in the answer: the backend's reasoning parser is missing or wrong."
        self.parser_lost = counter("parser_lost", text, "model backend")

    def exposition(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return b"".join(self.slices())

    def slices(self) -> Iterator[bytes]:
        """The exposition in parts that each take about a millisecond to make."""
        self.note_finished()
        written = ""
        for family in self.registry.collect():
            text = generate_latest(_Single(family))
            # a metric may come in several parts; only the first has the two lines of its description
            yield text.split(b"\n", 2)[2] if family.name == written else text
            written = family.name

    def count(self, record: Record) -> None:
        """Count a finished request."""
        model, decision, usage = record.model or "", record.decision, record.usage
        tier, reason = (decision.tier, decision.reason) if decision else ("", "")
        kind = self._kind(record.route, model, tier, record.status, reason)
        kind.requests.value += 1
        kind.duration.observe(record.duration)
        if record.overhead is not None:
            kind.overhead.observe(record.overhead)
        if record.first_byte is not None:
            kind.first_token.observe(record.first_byte)
        if decision and kind.decided:
            kind.decided.decisions.value += 1
            kind.decided.difficulty.observe(decision.difficulty)
        if record.decision_seconds is not None:
            self.deciding.observe(record.decision_seconds)
        if record.backend and record.counts and (record.error is None or usage.source != "none"):
            self._count_tokens(record, model, kind)
        if record.error or record.cancelled or record.attempts > 1 or usage.truncated or usage.lost_mark:
            self._count_trouble(record, model, tier)

    def _find_kind(self, route: str, model: str, tier: str, status: int, reason: str) -> _Kind:
        prompt, completion, reasoning, cached = (
            self.tokens.labels(model, tier, kind) for kind in ("prompt", "completion", "reasoning", "cached")
        )
        decided = _Decided(
            self.decisions.labels(model, tier, reason),
            self.difficulty.labels(model),
            self.predicted.labels(model, tier),
            self.right.labels(model, tier),
            self.longest.labels(model),
        )
        return _Kind(
            self.requests.labels(route, model, tier, status),
            self.duration.labels(route, tier),
            self.overhead.labels(route),
            self.first_token.labels(model, tier),
            (prompt, completion, reasoning, cached),
            self.completion.labels(model, tier),
            decided if reason else None,
        )

    def _count_trouble(self, record: Record, model: str, tier: str) -> None:
        if record.error:
            self.errors.labels(record.error.code).inc()
        if record.attempts > 1:
            self.retries.labels(model).inc(record.attempts - 1)
        if record.cancelled:
            self.cancelled.labels(model, _cause(record)).inc()
        if record.usage.truncated:
            self.truncated.labels(model, tier).inc()
        if record.usage.lost_mark and record.backend:
            self.parser_lost.labels(model, record.backend).inc()

    def _count_tokens(self, record: Record, model: str, kind: _Kind) -> None:
        usage, decision = record.usage, record.decision
        self.usage.labels(model, usage.source).value += 1
        for what in usage.uncounted or ("response",) * (usage.source == "none"):
            self.uncounted.labels(model, what).inc()
        prompt, completion, reasoning, cached = kind.tokens
        prompt.value += usage.prompt or 0
        reasoning.value += usage.reasoning or 0
        cached.value += usage.cached or 0
        if usage.completion is not None:
            completion.value += usage.completion
            kind.completion.observe(usage.completion)
            if decision and kind.decided:
                rungs = decision.rungs
                kind.decided.predicted.value += decision.rung_tokens * record.choices
                kind.decided.right.value += decision.rung_correct
                kind.decided.longest.value += rungs.tokens[rungs.highest] * record.choices
        if (
            decision
            and decision.thinking
            and record.sends_thinking_budget
            and usage.reasoning is not None
            and usage.source == "backend"
        ):
            allowed = (decision.thinking + SLACK) * record.choices
            outcome = "honoured" if usage.reasoning <= allowed else "ignored"
            self.budget_held.labels(model, record.backend or "", outcome).value += 1


def _cause(record: Record) -> str:
    """Why a generation was stopped."""
    if record.stopped:
        return "stop"
    return "client" if record.error and record.error.code == "client_closed" else "gateway"


class _Single(Collector):
    """One metric, to be written by itself."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family
