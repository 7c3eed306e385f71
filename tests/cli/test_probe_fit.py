"""Which tiers the probe reports as too long. test_probe.py tests it against a backend."""

from __future__ import annotations

import pytest

from gateway.cli.probe import _Probe
from gateway.upstream.dispatch import Upstream
from gateway.upstream.pool import pools_of
from tests.making import settings


@pytest.mark.parametrize(
    ("context", "too_long"),
    [(None, []), (900, []), (899, ["tier long fits"]), (300, ["tier medium fits", "tier long fits"])],
)
def test_tiers_that_do_not_fit(context: int | None, too_long: list[str]) -> None:
    """A tier that needs more tokens than the context is reported, if the context is known."""
    made = settings()
    (pool,) = pools_of(made).values()
    (backend,) = pool.backends
    backend.context = context
    findings = list(_Probe(Upstream(), made, pool, backend)._tiers_fit())

    assert [finding.check for finding in findings] == too_long
    assert all(finding.result == "too long" for finding in findings)
