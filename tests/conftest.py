"""Fixtures of all suites."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator

import pytest

from tests.fakes.backend import Backend
from tests.serving import Running, configuration, serving

# before scikit-learn is loaded: its threads spin for each other where cores are shared
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A scriptable backend that serves the model `tiny`."""
    async with Backend("tiny") as running:
        yield running


@pytest.fixture
async def running(backend: Backend) -> AsyncIterator[Running]:
    """A gateway with default settings in front of `backend`."""
    async with serving(configuration(backend.url)) as gateway:
        yield gateway


@pytest.fixture
def free_port() -> int:
    """A port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
