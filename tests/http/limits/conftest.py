"""A gateway with small limits."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.fakes.backend import Backend
from tests.http.raw_http import MIB
from tests.serving import Running, configuration, serving

LIMITS = {
    "body_bytes": MIB,
    "body_seconds": 0.3,
    "header_seconds": 0.3,
    "header_bytes": 8192,
    "header_count": 16,
}


@pytest.fixture
async def tight(backend: Backend) -> AsyncIterator[Running]:
    """A gateway with small limits. After the test it must serve a request and have no other in flight."""
    async with serving(configuration(backend.url, limits=LIMITS)) as running:
        yield running
        backend.clear()
        assert (await running.chat()).status == 200
        assert (await running.metrics())["thinkmeter_requests_in_flight"] == 1  # the scrape itself
