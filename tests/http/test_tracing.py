"""One span per model request, between the client's and the backend's, in the GenAI conventions."""

from __future__ import annotations

import threading

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from gateway.telemetry.tracing import Tracing
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.serving import configuration, serving

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def exported() -> InMemorySpanExporter:
    """Keeps spans in memory instead of sending them to a collector."""
    return InMemorySpanExporter()


async def request(backend: Backend, model: str, exporter: InMemorySpanExporter) -> ReadableSpan:
    settings = configuration(backend.url, server={"tracing": True, "access_log": False})
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with serving(settings, span_provider=lambda: provider) as running:
        running.http.headers["traceparent"] = CALLER
        await running.chat("hello", model=model)
        await running.recorded(1)
    (span,) = exporter.get_finished_spans()
    return span


async def test_span_tells_tokens_and_tier(backend: Backend, exported: InMemorySpanExporter) -> None:
    """A span has the model, the tokens and the decision."""
    span = await request(backend, "tiny:short", exported)

    assert span.name == "chat tiny"
    attributes = dict(span.attributes or {})
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.request.model"] == "tiny"
    assert attributes["thinkmeter.tier"] == "short"
    assert attributes["gen_ai.usage.reasoning.output_tokens"] == 16
    assert attributes["gen_ai.request.max_tokens"] == 48
    assert span.status.status_code is StatusCode.UNSET


async def test_trace_goes_on_through_the_gateway(backend: Backend, exported: InMemorySpanExporter) -> None:
    """The span is a child of the client's span, and its own context is sent to the backend."""
    span = await request(backend, "tiny", exported)

    assert span.parent is not None
    assert CALLER.split("-")[1:3] == [f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}"]
    sent = backend.requests[-1].headers["traceparent"]
    assert [f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"] == sent.split("-")[1:3]


async def test_error_marks_the_span(backend: Backend, exported: InMemorySpanExporter) -> None:
    """The span of a failed request has the error's code and an error status."""
    backend.default = Fault(status=500)

    span = await request(backend, "tiny", exported)

    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {})["error.type"] == "backend_error"


def test_stalled_collector_does_not_delay_the_end() -> None:
    """A collector that does not respond delays the shutdown by a bounded time."""
    release, ended = threading.Event(), []

    class Stalled(InMemorySpanExporter):
        def shutdown(self) -> None:
            release.wait(10)
            ended.append(True)

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(Stalled()))
    tracing = Tracing(provider)
    tracing.close(0.05)

    assert not ended
    release.set()
