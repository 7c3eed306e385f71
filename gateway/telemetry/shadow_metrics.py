"""Metrics of the shadow requests. Nothing of them is in the metrics of clients' requests."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from gateway.telemetry.series import Count, Counts


class ShadowMetrics:
    """What became of the requests that were drawn, and the tokens that asking again has used."""

    def __init__(self, registry: CollectorRegistry) -> None:
        text = "Requests that were drawn to be asked again, by what became of that."
        self._requests = Counts(registry, "thinkmeter_shadow_requests", text, ["model", "outcome"])
        text = "Tokens of shadow requests and of their judge, by type."
        self._tokens = Counts(registry, "thinkmeter_shadow_tokens", text, ["model", "type"])
        self.in_flight = Count()
        running = Gauge("thinkmeter_shadow_in_flight", "Shadow requests in progress.", registry=registry)
        running.set_function(lambda: self.in_flight.value)

    def count(self, model: str, outcome: str) -> None:
        """Count one drawn request."""
        self._requests.labels(model, outcome).inc()

    def count_tokens(self, model: str, kind: str, tokens: int | None) -> None:
        """Add tokens of a type: `prompt`, `completion` or `judge`."""
        if tokens:
            self._tokens.labels(model, kind).inc(tokens)
