"""OpenTelemetry spans in the GenAI conventions. Imported only if `server.tracing` is on."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway import __version__
from gateway.errors import InvalidRequest
from gateway.telemetry.record import Record

_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}


def exporting_provider() -> TracerProvider:
    """Exports spans to an OTLP collector, configured by the standard OTEL_EXPORTER_OTLP_* variables."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    provider = TracerProvider(
        resource=Resource.create({"service.name": "thinkmeter"}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Tracing:
    """One client span per model request: the child of the client's span and the parent of the backend's."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("thinkmeter", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, headers: Mapping[bytes, bytes], record: Record) -> None:
        """Start the span of a request, and add its context to the headers for the backend."""
        carrier = {
            name: headers[name.encode()].decode("latin-1")
            for name in ("traceparent", "tracestate")
            if name.encode() in headers
        }
        operation = _OPERATIONS[record.route]
        span = self._tracer.start_span(
            operation,
            self._propagator.extract(carrier),
            SpanKind.CLIENT,
            {"gen_ai.operation.name": operation},
        )
        record.span = span
        context: dict[str, str] = {}
        self._propagator.inject(context, set_span_in_context(span))
        record.trace_headers = [(name.encode(), value.encode()) for name, value in context.items()]

    def end(self, record: Record) -> None:
        """Add what happened to the span, and end it."""
        span = record.span
        if not isinstance(span, Span):
            return
        for name, value in _attributes(record).items():
            if value is not None:
                span.set_attribute(name, value)
        if record.model:
            span.update_name(f"{_OPERATIONS[record.route]} {record.model}")
        if record.error:
            # a message about an invalid request may quote the prompt
            quotes = isinstance(record.error, InvalidRequest)
            span.set_status(StatusCode.ERROR, None if quotes else record.error.message)
        span.end()

    def close(self, seconds: float = 2.0) -> None:
        """Export the remaining spans, for so long. A collector that stalls must not delay the shutdown."""
        ending = threading.Thread(target=self._provider.shutdown, name="traces-end", daemon=True)
        ending.start()
        ending.join(seconds)


def _attributes(record: Record) -> dict[str, str | int | float | list[str] | None]:
    usage, decision = record.usage, record.decision
    found: dict[str, str | int | float | list[str] | None] = {
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": record.model,
        "gen_ai.usage.input_tokens": usage.prompt,
        "gen_ai.usage.output_tokens": usage.completion,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning,
        "gen_ai.response.finish_reasons": [usage.finish_reason] if usage.finish_reason else None,
        "http.response.status_code": record.status,
        "error.type": record.error.code if record.error else None,
        "thinkmeter.backend": record.backend,
    }
    if decision:
        found |= {
            "gen_ai.request.max_tokens": decision.cap,
            "thinkmeter.tier": decision.tier,
            "thinkmeter.reason": decision.reason,
            "thinkmeter.difficulty": decision.difficulty,
            "thinkmeter.decision_id": decision.id,
        }
    return found
