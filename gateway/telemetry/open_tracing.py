"""Begins tracing. It imports the SDK only where tracing is configured, as that is an optional extra."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from gateway.telemetry.tracing import Tracing


def tracing_of(span_provider: Callable[[], TracerProvider] | None) -> Tracing:
    """The tracing of a gateway. span_provider: makes what takes the spans, in place of an exporter."""
    from gateway.telemetry.tracing import Tracing, exporting_provider  # noqa: PLC0415 - an optional extra

    return Tracing((span_provider or exporting_provider)())
