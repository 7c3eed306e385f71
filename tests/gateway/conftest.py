"""Hypothesis for this suite: a time limit an example would make the result depend on the machine."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("gateway", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gateway")
