"""Everything observable: Prometheus metrics, the access log, and the sinks a record goes to."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from gateway import __version__
from gateway.errors import InvalidRequest
from gateway.record import Record
from gateway.replicas import Backend, Pool
from gateway.usage import SLACK

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every series, which nobody asks for

_OVERHEAD = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
_DURATION = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144)
_UNIT = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


class Metrics:
    """All metrics of one gateway, in a registry of their own. Labels take values from closed sets only."""

    def __init__(self, backends: Callable[[], Iterable[tuple[Pool, Backend]]]) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"thinkmeter_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"thinkmeter_{name}", text, labels, buckets=buckets, registry=registry)

        self.requests = counter("requests", "Requests answered.", "route", "model", "tier", "status")
        self.errors = counter("errors", "Requests that ended in an error, by its code.", "code")
        self.decisions = counter("decisions", "Tier decisions.", "model", "tier", "reason")
        self.tokens = counter("tokens", "Tokens by type.", "model", "tier", "type")
        self.usage = counter("usage", "Answers by where their token count came from.", "model", "source")
        self.truncated = counter(
            "truncated_responses",
            "Answers cut at the length limit before their first character.",
            "model",
            "tier",
        )
        self.budget_held = counter(
            "thinking_budget",
            "Answers under a thinking budget, by whether it held.",
            "model",
            "backend",
            "outcome",
        )
        self.cancelled = counter(
            "upstream_cancelled", "Generations stopped before their end.", "model", "cause"
        )
        self.retries = counter("upstream_retries", "Further attempts before the first byte.", "model")
        self.reloads = counter("config_reloads", "Configuration reloads.", "result")
        self.in_flight = Gauge("thinkmeter_requests_in_flight", "Requests being served.", registry=registry)
        self.duration = histogram("request_duration_seconds", "Whole requests.", _DURATION, "route", "tier")
        self.overhead = histogram(
            "overhead_seconds", "Our share of the time to the first byte of an answer.", _OVERHEAD, "route"
        )
        self.first_token = histogram(
            "time_to_first_token_seconds",
            "Time to the first byte of a streamed answer.",
            _DURATION,
            "model",
            "tier",
        )
        self.deciding = histogram(
            "decision_seconds", "Rules, features, head and choice for one request.", _OVERHEAD
        )
        self.difficulty = histogram("difficulty", "Estimated difficulty of prompts.", _UNIT, "model")
        self.completion = histogram(
            "completion_tokens",
            "Completion tokens of an answer, reasoning included.",
            _TOKENS,
            "model",
            "tier",
        )
        Info("thinkmeter_build", "The running version.", registry=registry).info({"version": __version__})
        registry.register(_Backends(backends))

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def observe(self, record: Record) -> None:
        """Count one finished request."""
        model, decision, tally = record.model or "", record.decision, record.tally
        tier = decision.tier if decision else ""
        self.requests.labels(record.route, model, tier, record.status).inc()
        self.duration.labels(record.route, tier).observe(record.duration)
        if record.error:
            self.errors.labels(record.error.code).inc()
        if record.overhead is not None:
            self.overhead.labels(record.route).observe(record.overhead)
        if record.first_byte is not None:
            self.first_token.labels(model, tier).observe(record.first_byte)
        if record.attempts > 1:
            self.retries.labels(model).inc(record.attempts - 1)
        if record.cancelled:
            cause = "client" if record.error and record.error.code == "client_closed" else "gateway"
            self.cancelled.labels(model, cause).inc()
        if decision:
            self.decisions.labels(model, tier, decision.reason).inc()
            self.difficulty.labels(model).observe(decision.difficulty)
        if record.decision_seconds is not None:
            self.deciding.observe(record.decision_seconds)
        if record.backend and (record.error is None or tally.source != "none"):
            self._count_tokens(record, model, tier)
        if tally.truncated:
            self.truncated.labels(model, tier).inc()

    def _count_tokens(self, record: Record, model: str, tier: str) -> None:
        tally, decision = record.tally, record.decision
        self.usage.labels(model, tally.source).inc()
        for kind in ("prompt", "completion", "reasoning", "cached"):
            if count := getattr(tally, kind):
                self.tokens.labels(model, tier, kind).inc(count)
        if tally.completion is not None:
            self.completion.labels(model, tier).observe(tally.completion)
        if decision and decision.thinking and tally.reasoning is not None and tally.source == "backend":
            allowed = (decision.thinking + SLACK) * record.choices
            outcome = "honoured" if tally.reasoning <= allowed else "ignored"
            self.budget_held.labels(model, record.backend, outcome).inc()


class _Backends(Collector):
    """The state of every replica, read when it is scraped."""

    def __init__(self, backends: Callable[[], Iterable[tuple[Pool, Backend]]]) -> None:
        self._backends = backends

    def collect(self) -> Iterator[Metric]:
        labels = ["model", "backend"]
        up = GaugeMetricFamily("thinkmeter_backend_up", "1 while health checks pass.", labels=labels)
        busy = GaugeMetricFamily("thinkmeter_backend_in_flight", "Requests at the replica.", labels=labels)
        breaker = GaugeMetricFamily(
            "thinkmeter_backend_breaker_state", "0 closed, 1 half open, 2 open.", labels=labels
        )
        now = time.monotonic()
        for pool, backend in self._backends():
            values = [pool.model, backend.name]
            up.add_metric(values, 1.0 if backend.healthy else 0.0)
            busy.add_metric(values, backend.in_flight)
            breaker.add_metric(values, {"closed": 0, "half_open": 1, "open": 2}[backend.breaker.state(now)])
        yield from (up, busy, breaker)


def access_line(record: Record) -> bytes:
    """One JSON line about a request; never a word of its prompt or answer."""
    decision, tally, error = record.decision, record.tally, record.error
    entry: dict[str, object] = {
        "time": round(record.started_at, 3),
        "request_id": record.request_id,
        "route": record.route,
        "status": record.status,
        "key": record.key,
        "model": record.model,
        "stream": record.stream,
        "duration_ms": round(record.duration * 1000, 2),
    }
    if decision:
        entry |= {
            "decision_id": decision.id,
            "tier": decision.tier,
            "requested": decision.requested,
            "reason": decision.reason,
            "rule": decision.rule,
            "difficulty": decision.difficulty,
            "correct": decision.correct,
            "tokens": decision.tokens,
            "price": decision.price,
            "propensity": decision.propensity,
            "eligible": decision.eligible,
            "thinking": decision.thinking,
            "cap": decision.cap,
            "versions": decision.versions,
        }
    if record.backend:
        entry |= {
            "backend": record.backend,
            "attempts": record.attempts,
            "overhead_ms": None if record.overhead is None else round(record.overhead * 1000, 3),
            "first_byte_ms": None if record.first_byte is None else round(record.first_byte * 1000, 2),
            "prompt_tokens": tally.prompt,
            "completion_tokens": tally.completion,
            "reasoning_tokens": tally.reasoning,
            "usage": tally.source,
            "finish_reason": tally.finish_reason,
            "truncated": tally.truncated,
            "cancelled": record.cancelled,
        }
    if error:
        # what is wrong with a request is said by quoting it: backends put whole prompts into such messages
        quotes = isinstance(error, InvalidRequest)
        message = None if quotes else error.message
        entry |= {"error": error.code, "message": message, "detail": error.detail}
    return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)


def write_access_line(record: Record) -> None:
    """Write the line to standard output at once."""
    sys.stdout.buffer.write(access_line(record))
    sys.stdout.buffer.flush()
