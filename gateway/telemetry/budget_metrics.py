"""The Prometheus metrics of the token budgets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.budget.observer import WindowSurvey, WindowView, window_label
from gateway.telemetry.series import Counts, Spreads

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
_SLICE = 100  # windows


class BudgetMetrics:
    """The metrics of the token budgets. Implements `BudgetObserver`, which documents the methods."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counts:
            return Counts(registry, f"thinkmeter_{name}", text, labels)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"thinkmeter_{name}", text, labels, registry=registry)

        self._decisions = counter(
            "budget_decisions", "Requests under a budget, by outcome.", "budget", "outcome"
        )
        self._fallbacks = counter("budget_fallbacks", "Requests decided without Redis.", "policy")
        self._overruns = counter("budget_overrun_tokens", "Tokens spent beyond what was reserved.", "budget")
        self._errors = counter("redis_errors", "Redis operations that failed.", "operation")
        text = "Duration of Redis operations."
        self._seconds = Spreads(registry, "thinkmeter_redis_seconds", text, _SECONDS, ["operation"])
        self._windows = _Windows()
        registry.register(self._windows)
        self._left_out = gauge(
            "budget_holders_left_out", "Holders without budget_tokens, as others are used more.", "budget"
        )
        self._stale = gauge(
            "budget_stale_tokens", "Tokens held by reservations whose lease has expired.", "budget"
        )
        self._undelivered = gauge("budget_undelivered", "Settlements not yet delivered to Redis.")
        self._price = gauge("price", "Probability of a right answer that 1,000 tokens must buy.", "budget")
        self._price_at_bound = gauge(
            "price_at_bound", "1 while a higher price would change nothing.", "budget"
        )
        self._up = gauge("redis_up", "1 while Redis responds.")

    def redis_called(self, operation: str, seconds: float | None) -> None:
        if seconds is None:
            self._errors.labels(operation).inc()
        else:
            self._seconds.labels(operation).observe(seconds)

    def decided(self, budget: str, outcome: str) -> None:
        self._decisions.labels(budget, outcome).value += 1

    def fell_back(self, policy: str) -> None:
        self._fallbacks.labels(policy).inc()

    def overran(self, budget: str, tokens: int) -> None:
        self._overruns.labels(budget).inc(tokens)

    def priced(self, budget: str, price: float, *, at_bound: bool) -> None:
        self._price.labels(budget).set(price)
        self._price_at_bound.labels(budget).set(at_bound)

    def unpriced(self, budget: str) -> None:
        for gauge in (self._price, self._price_at_bound):
            with suppress(KeyError):
                gauge.remove(budget)

    def windows_read(self, survey: WindowSurvey, *, up: bool | None, undelivered: int) -> None:
        self._up.set(math.nan if up is None else up)
        self._undelivered.set(undelivered)
        self._windows.views = survey.windows
        for gauge, values in ((self._stale, survey.stale), (self._left_out, survey.left_out)):
            gauge.clear()  # budgets that are gone lose their series
            for budget, value in values.items():
                gauge.labels(budget).set(value)


class _Windows(Collector):
    """The windows that were read last. Each slice is a metric of its own, to be written by itself."""

    def __init__(self) -> None:
        self.views: Sequence[WindowView] = ()

    def collect(self) -> Iterator[Metric]:
        labels = ["budget", "holder", "window", "state"]
        views = self.views
        for start in range(0, max(len(views), 1), _SLICE):
            tokens = GaugeMetricFamily("thinkmeter_budget_tokens", "Tokens of a window.", labels=labels)
            for view in views[start : start + _SLICE]:
                window = view.budget, view.holder, window_label(view)
                for state, amount in (
                    ("cap", view.cap),
                    ("settled", view.settled),
                    ("reserved", view.reserved),
                ):
                    tokens.add_metric((*window, state), amount)
            yield tokens
