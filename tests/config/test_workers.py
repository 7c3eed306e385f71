"""Workers share what the settings allow the whole gateway."""

from __future__ import annotations

import pytest
import yaml

from gateway.config.loader import parse
from gateway.config.settings import Settings
from gateway.config.workers import share_of_worker
from tests.serving import configuration

LIMITS = {"connections": 100, "bodies_bytes": 1001, "unread_bytes": 0, "connections_per_address": 7}


def settings() -> Settings:
    changes = {
        "limits": LIMITS,
        "queue": {"requests": 3},
        "reservations": {"local_share": 0.4, "p95_overrun": 1},
    }
    return parse(yaml.safe_dump(configuration("http://a", **changes)), {})


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 256])
def test_all_workers_together(workers: int) -> None:
    """Together they have what is allowed, and at most one unit per worker more."""
    whole, own = settings(), share_of_worker(settings(), workers)

    for section, name in (
        *(("limits", name) for name in ("connections", "bodies_bytes", "unread_bytes", "unfinished_bytes")),
        ("queue", "requests"),
    ):
        allowed, each = getattr(getattr(whole, section), name), getattr(getattr(own, section), name)
        assert allowed <= each * workers < allowed + workers
    assert own.reservations.local_share * workers == pytest.approx(whole.reservations.local_share)
    assert own.reservations.p95_overrun * workers == pytest.approx(whole.reservations.p95_overrun)


def test_what_is_not_shared() -> None:
    """Limits on one request and on one address, and a default of the system, are the same for each worker."""
    own = share_of_worker(parse(yaml.safe_dump(configuration("http://a")), {}), 4)

    assert own.limits.connections is None
    assert share_of_worker(settings(), 4).limits.connections_per_address == 7
    assert own.limits.body_bytes == settings().limits.body_bytes
