"""Fixtures of all suites."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, settings

from tests.fakes.backend import Backend
from tests.redis import PATIENT
from tests.serving import Running, configuration, free_port, serving

# before scikit-learn is loaded: its threads spin for each other where cores are shared
os.environ.setdefault("OMP_NUM_THREADS", "1")

# a time limit per example would make a result depend on the machine
settings.register_profile("thinkmeter", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("thinkmeter")


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
def patient_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gateways wait for Redis longer than the settings allow: a busy machine is no Redis that fails."""
    monkeypatch.setattr("tests.serving.redis_timeout", PATIENT)


@pytest.fixture(name="free_port")
def _free_port() -> int:
    """A port nobody listens on right now."""
    return free_port()
