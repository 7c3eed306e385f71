"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, settings

from tests.authority import Authority
from tests.fakes.backend import Backend
from tests.redis import PATIENT
from tests.serving import Running, configuration, free_port, serving

# set before scikit-learn is loaded: its threads wait for each other in busy loops, slow on shared cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

# with a time limit per example, results would depend on the machine
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


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A private certificate authority."""
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def patient_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let gateways wait for Redis longer than the settings allow, so that a busy machine fails no test."""
    monkeypatch.setattr("tests.serving.redis_timeout", PATIENT)


@pytest.fixture(name="free_port")
def _free_port() -> int:
    """A port on which nothing listens at the moment."""
    return free_port()
