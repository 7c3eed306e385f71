"""Paths have one spelling, so that the rules of a balancer hold."""

from __future__ import annotations

import pytest

from tests.fakes.backend import Backend
from tests.http.raw_http import connect
from tests.serving import configuration, serving


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/metrics", 200),
        ("/%6detrics", 404),
        ("/metric%73", 404),
        ("/%2Fmetrics", 404),
        ("http://x/%6detrics", 404),
        ("//metrics", 404),
        ("/./metrics", 404),
        ("/v1/../metrics", 404),
        ("/metrics?name=%6d", 200),
        ("/healt%68z", 404),
        ("/%61dmin/budgets", 404),
        ("/admin%2Fbudgets", 404),
        ("/admin/%62udgets", 404),
        ("/admin/budgets/none/b%20c", 404),
        ("/admin/budgets/each/a%6en", 503),  # found, but there is no Redis
        ("/v1/models/t%69ny", 200),
        ("/v1/models/tiny%3Ashort", 200),
        ("/v1/model%73", 404),
    ],
)
async def test_escapes_only_in_names(backend: Backend, target: str, status: int) -> None:
    """%-escapes are accepted only in the names of models, budgets and holders."""
    settings = configuration(
        backend.url,
        admin={"key": "k"},
        keys=[{"name": "ann", "key": "k2"}],
        budgets=[{"name": "each", "scope": "key", "window": "1m", "tokens": 100}],
        redis={"url": "redis://127.0.0.1:1"},
    )
    key = "k2" if "/v1/" in target else "k"
    async with serving(settings) as running, connect(running.url) as (reader, writer):
        head = f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        response = await reader.read()

    assert int(response.split(b" ", 2)[1]) == status
    assert (b"thinkmeter_build_info" in response) is (target.startswith("/metrics"))
