"""All Prometheus metrics of a gateway."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from gateway import __version__
from gateway.openai_api.usage import SLACK
from gateway.telemetry.budget_metrics import BudgetMetrics
from gateway.telemetry.record import Record
from gateway.upstream.pool import Backend, Pool
from router_model.predictor import Evidence

# otherwise every counter and histogram has a second series with the time of its creation
disable_created_metrics()  # type: ignore[no-untyped-call]

_OVERHEAD = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
_DURATION = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144)
_Labelled = TypeVar("_Labelled", Counter, Histogram)

_UNIT = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


class Metrics:
    """All metrics of one gateway, in their own registry. Labels take values from closed sets only."""

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

        def counter(name: str, text: str, labels: str) -> Counter:
            return Counter(f"thinkmeter_{name}", text, labels.split(), registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], labels: str = "") -> Histogram:
            return Histogram(f"thinkmeter_{name}", text, labels.split(), buckets=buckets, registry=registry)

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
        self.in_flight = Gauge("thinkmeter_requests_in_flight", "Requests in progress.", registry=registry)
        self.connections = Gauge("thinkmeter_connections", "Open client connections.", registry=registry)
        text = "Client connections closed because a limit was reached."
        self.refused_connections = counter("connections_refused", text, "")
        text = "Duration of whole requests."
        self.duration = histogram("request_duration_seconds", text, _DURATION, "route tier")
        text = "The gateway's share of the time to the first byte of a response."
        self.overhead = histogram("overhead_seconds", text, _OVERHEAD, "route")
        text = "Time to the first byte of a streamed response."
        self.first_token = histogram("time_to_first_token_seconds", text, _DURATION, "model tier")
        text = "Time for rules, features, head and choice, per request."
        self.deciding = histogram("decision_seconds", text, _OVERHEAD)
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
        registry.register(_Backends(backends))
        registry.register(_PriorShare(evidence))
        registry.register(_DroppedLines(dropped_lines))
        self.budget = BudgetMetrics(registry)
        self._of = cache(_labelled)

    def _add_losses(self, counter: Callable[[str, str, str], Counter]) -> None:
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
        written = ""
        for family in self.registry.collect():
            text = generate_latest(_Single(family))
            # a metric may come in several parts; only the first has the two lines of its description
            yield text.split(b"\n", 2)[2] if family.name == written else text
            written = family.name

    def count(self, record: Record) -> None:
        """Count a finished request."""
        model, decision, usage = record.model or "", record.decision, record.usage
        tier = decision.tier if decision else ""
        self._of(self.requests, record.route, model, tier, record.status).inc()
        self._of(self.duration, record.route, tier).observe(record.duration)
        if record.error:
            self._of(self.errors, record.error.code).inc()
        if record.overhead is not None:
            self._of(self.overhead, record.route).observe(record.overhead)
        if record.first_byte is not None:
            self._of(self.first_token, model, tier).observe(record.first_byte)
        if record.attempts > 1:
            self._of(self.retries, model).inc(record.attempts - 1)
        if record.cancelled:
            self._of(self.cancelled, model, _cause(record)).inc()
        if decision:
            self._of(self.decisions, model, tier, decision.reason).inc()
            self._of(self.difficulty, model).observe(decision.difficulty)
        if record.decision_seconds is not None:
            self.deciding.observe(record.decision_seconds)
        if record.backend and record.counts and (record.error is None or usage.source != "none"):
            self._count_tokens(record, model, tier)
        self._count_lost(record, model, tier)

    def _count_lost(self, record: Record, model: str, tier: str) -> None:
        if record.usage.truncated:
            self._of(self.truncated, model, tier).inc()
        if record.usage.lost_mark and record.backend:
            self._of(self.parser_lost, model, record.backend).inc()

    def _count_tokens(self, record: Record, model: str, tier: str) -> None:
        usage, decision = record.usage, record.decision
        self._of(self.usage, model, usage.source).inc()
        for what in usage.uncounted or ("response",) * (usage.source == "none"):
            self._of(self.uncounted, model, what).inc()
        for kind in ("prompt", "completion", "reasoning", "cached"):
            if count := getattr(usage, kind):
                self._of(self.tokens, model, tier, kind).inc(count)
        if usage.completion is not None:
            self._of(self.completion, model, tier).observe(usage.completion)
            if decision:
                rungs = decision.rungs
                self._of(self.predicted, model, tier).inc(decision.rung_tokens * record.choices)
                self._of(self.right, model, tier).inc(decision.rung_correct)
                self._of(self.longest, model).inc(rungs.tokens[rungs.highest] * record.choices)
        if (
            decision
            and decision.thinking
            and record.sends_thinking_budget
            and usage.reasoning is not None
            and usage.source == "backend"
        ):
            allowed = (decision.thinking + SLACK) * record.choices
            outcome = "honoured" if usage.reasoning <= allowed else "ignored"
            self._of(self.budget_held, model, record.backend, outcome).inc()


def _cause(record: Record) -> str:
    """Why a generation was stopped."""
    if record.stopped:
        return "stop"
    return "client" if record.error and record.error.code == "client_closed" else "gateway"


def _labelled(metric: _Labelled, *values: str | int) -> _Labelled:
    """The series with these label values. Cached, because finding it costs more than counting."""
    return metric.labels(*values)


class _Single(Collector):
    """One metric, to be written by itself."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


class _Backends(Collector):
    """Metrics of the replicas, read at the time of a scrape, so that a removed replica has none."""

    def __init__(self, backends: Callable[[], Iterable[tuple[Pool, Backend]]]) -> None:
        self._backends = backends

    def collect(self) -> Iterator[Metric]:
        labels = ["model", "backend"]
        up = GaugeMetricFamily("thinkmeter_backend_up", "1 while health checks pass.", labels=labels)
        text = "Requests that this gateway has at the replica."
        busy = GaugeMetricFamily("thinkmeter_backend_in_flight", text, labels=labels)
        breaker = GaugeMetricFamily(
            "thinkmeter_backend_breaker_state", "0 closed, 1 half open, 2 open.", labels=labels
        )
        text = "Times that the breaker left the replica out."
        ejections = CounterMetricFamily("thinkmeter_backend_ejections", text, labels=labels)
        text = "Further attempts that the retry budget did not allow."
        refused = CounterMetricFamily("thinkmeter_upstream_retries_refused", text, labels=["model"])
        text = "1 for what the last health check of the replica found wrong."
        cause = GaugeMetricFamily("thinkmeter_backend_cause", text, labels=[*labels, "cause"])
        text = "Requests asked again, because the replica refused a field that the gateway had added."
        fields = CounterMetricFamily("thinkmeter_fields_refused", text, labels=[*labels, "field"])
        now = time.monotonic()
        budgets = {}
        for pool, backend in self._backends():
            values = [pool.model, backend.name]
            if backend.cause:
                cause.add_metric([*values, backend.cause.word], 1.0)
            up.add_metric(values, 1.0 if backend.healthy else 0.0)
            busy.add_metric(values, backend.in_flight)
            breaker.add_metric(values, {"closed": 0, "half_open": 1, "open": 2}[backend.breaker.state(now)])
            ejections.add_metric(values, backend.breaker.openings)
            for name, count in backend.refused.counts.items():
                fields.add_metric([*values, name], count)
            budgets[pool.model] = pool.retry_budget
        for model, budget in budgets.items():
            refused.add_metric([model], budget.refused)
        yield from (up, cause, busy, breaker, ejections, refused, fields)


class _PriorShare(Collector):
    """What the head's estimates rest on, read at the time of a scrape."""

    def __init__(self, evidence: Callable[[], Mapping[str, Evidence]]) -> None:
        self._evidence = evidence

    def collect(self) -> Iterator[Metric]:
        text = "Weight of the prior in a model's estimates: 1 if it was never measured, 0 if it was."
        share = GaugeMetricFamily("thinkmeter_prior_share", text, labels=["model"])
        for model, found in self._evidence().items():
            share.add_metric([model], found.prior_share)
        yield share


class _DroppedLines(Collector):
    """Log lines that were not written, read at the time of a scrape."""

    def __init__(self, dropped: Callable[[], Mapping[str, int]]) -> None:
        self._dropped = dropped

    def collect(self) -> Iterator[Metric]:
        text = "Log lines dropped, because their reader was too slow or the disk full."
        lines = CounterMetricFamily("thinkmeter_log_lines_dropped", text, labels=["stream"])
        for stream, count in self._dropped().items():
            lines.add_metric([stream], count)
        yield lines
