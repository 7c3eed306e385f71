"""Metrics that are read at the time of a scrape, from what the gateway has anyway."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.upstream.pool import Backend, Pool
from router_model.predictor import Evidence


class Replicas(Collector):
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


class PriorShare(Collector):
    """What the head's estimates rest on, read at the time of a scrape."""

    def __init__(self, evidence: Callable[[], Mapping[str, Evidence]]) -> None:
        self._evidence = evidence

    def collect(self) -> Iterator[Metric]:
        text = "Weight of the prior in a model's estimates: 1 if it was never measured, 0 if it was."
        share = GaugeMetricFamily("thinkmeter_prior_share", text, labels=["model"])
        for model, found in self._evidence().items():
            share.add_metric([model], found.prior_share)
        yield share


class DroppedLines(Collector):
    """Log lines that were not written, read at the time of a scrape."""

    def __init__(self, dropped: Callable[[], Mapping[str, int]]) -> None:
        self._dropped = dropped

    def collect(self) -> Iterator[Metric]:
        text = "Log lines dropped, because their reader was too slow or the disk full."
        lines = CounterMetricFamily("thinkmeter_log_lines_dropped", text, labels=["stream"])
        for stream, count in self._dropped().items():
            lines.add_metric([stream], count)
        yield lines
