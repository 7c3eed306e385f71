"""Metrics of the evidence: the state of its store, answers that were judged, and shadow pairs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.telemetry.series import Counts


@dataclass(frozen=True, slots=True)
class EvidenceState:
    """What the writer of the store knows at the time of a scrape."""

    up: bool | None
    """None while it is being opened."""
    waiting: int
    written: Mapping[str, int] = field(default_factory=dict)
    """Rows, by table."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows, by reason."""
    pairs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Shadow pairs that this gateway has written, by model and result."""
    flips: Mapping[str, int] = field(default_factory=dict)
    """Those where the judge changed its mind with the order, by model."""
    size: int | None = None
    """Bytes of the store."""
    oldest: float | None = None
    """Unix time of its oldest decision."""


@dataclass(frozen=True, slots=True)
class DriftSeries:
    """How much speaks against what the head says of one tier of a model."""

    model: str
    tier: str
    kind: str
    evidence: float
    """Natural logarithm."""
    alarm: bool

    @property
    def key(self) -> tuple[str, str, str]:
        """The values of the labels."""
        return self.model, self.tier, self.kind


class EvidenceMetrics:
    """Answers about which feedback came, counted when it comes, and the state of the store."""

    state: Callable[[], EvidenceState | None] = staticmethod(lambda: None)
    """Returns the state of the store, if there is one."""
    drift: Callable[[], list[DriftSeries]] = staticmethod(list)
    """Returns what is watched for drift."""

    def __init__(self, registry: CollectorRegistry) -> None:
        registry.register(_Store(self))
        registry.register(_Drift(self))

        def counter(name: str, text: str, *labels: str) -> Counts:
            return Counts(registry, f"thinkmeter_{name}", text, ("model", "tier", "arm", *labels))

        text = "Feedback of clients, by what became of it."
        self._feedback = Counts(registry, "thinkmeter_feedback", text, ["outcome"])
        text = "Answers that a source has judged for the first time, by what it said."
        self._outcomes = counter("outcomes", text, "verdict")
        self._scores = counter("outcome_scores", "Sum of the scores of these answers: 1 right, 0 wrong.")
        self._expected = counter("outcome_expected", "Sum of the head's P(right) over the same answers.")

    def count_feedback(self, outcome: str) -> None:
        """Count what became of one feedback."""
        self._feedback.labels(outcome).inc()

    def count_judged(self, model: str, tier: str, arm: str, score: float, expected: float) -> None:
        """Count one. score: from 0 for wrong to 1 for right. expected: the head's P(right)."""
        verdict = "right" if score == 1 else "wrong" if score == 0 else "partly"
        self._outcomes.labels(model, tier, arm, verdict).inc()
        self._scores.labels(model, tier, arm).inc(score)
        self._expected.labels(model, tier, arm).inc(expected)


class _Store(Collector):
    """The state of the store, read at the time of a scrape. Without a store there are no series."""

    def __init__(self, metrics: EvidenceMetrics, clock: Callable[[], float] = time.time) -> None:
        self._metrics = metrics
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        text = "Rows of evidence written, by table."
        rows = CounterMetricFamily("thinkmeter_evidence_rows", text, labels=["table"])
        text = "Rows of evidence that were not written, by the reason."
        dropped = CounterMetricFamily("thinkmeter_evidence_dropped", text, labels=["reason"])
        text = "Rows of evidence in memory that are not written yet."
        waiting = GaugeMetricFamily("thinkmeter_evidence_waiting", text, labels=[])
        text = "1 while the store of evidence can be written to."
        up = GaugeMetricFamily("thinkmeter_evidence_store_up", text, labels=[])
        text = "Size of the store of evidence."
        size = GaugeMetricFamily("thinkmeter_evidence_store_bytes", text, labels=[])
        text = "Age of the oldest decision in the store."
        oldest = GaugeMetricFamily("thinkmeter_evidence_oldest_seconds", text, labels=[])
        text = "Shadow pairs written, by which answer was better."
        pairs = CounterMetricFamily("thinkmeter_shadow_pairs", text, labels=["model", "result"])
        text = "Shadow pairs where the judge preferred another answer when their order was changed."
        flips = CounterMetricFamily("thinkmeter_shadow_flips", text, labels=["model"])
        if state := self._metrics.state():
            for table, count in list(state.written.items()):
                rows.add_metric([table], count)
            for reason, count in list(state.dropped.items()):
                dropped.add_metric([reason], count)
            for place, count in list(state.pairs.items()):
                pairs.add_metric([*place], count)
            for model, count in list(state.flips.items()):
                flips.add_metric([model], count)
            waiting.add_metric([], state.waiting)
            up.add_metric([], math.nan if state.up is None else float(state.up))
            if state.size is not None:
                size.add_metric([], state.size)
            if state.oldest is not None:
                oldest.add_metric([], max(0.0, self._clock() - state.oldest))
        yield from (rows, dropped, waiting, up, size, oldest, pairs, flips)


class _Drift(Collector):
    """What was found at the last look for drift."""

    def __init__(self, metrics: EvidenceMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        labels = ["model", "tier", "kind"]
        text = "1 while what the head says of a tier does not hold, by what is watched."
        alarm = GaugeMetricFamily("thinkmeter_drift_alarm", text, labels=labels)
        text = "Evidence that what the head says of a tier does not hold: natural logarithm of an e-value."
        evidence = GaugeMetricFamily("thinkmeter_drift_evidence", text, labels=labels)
        for one in self._metrics.drift():
            alarm.add_metric(one.key, float(one.alarm))
            evidence.add_metric(one.key, one.evidence)
        yield from (alarm, evidence)
