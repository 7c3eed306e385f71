"""Without `evidence`, nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.backend import Backend
from tests.http.raw_http import ask
from tests.serving import configuration, serving


async def test_nothing_is_written_by_default(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests, streams and feedback leave no file behind, also not while the gateway runs."""
    monkeypatch.chdir(tmp_path)
    async with serving(configuration(backend.url)) as running:
        await running.chat("a secret")
        await running.chat("a secret", stream=True)
        body = {"decision_id": running.records[0].decision.id, "correct": True}  # type: ignore[union-attr]
        answer = await ask(running.http, running.url, "/v1/feedback", body)
        during = list(tmp_path.rglob("*"))

    assert running.gateway.evidence is None
    assert answer.status == 404
    assert during == []
    assert list(tmp_path.rglob("*")) == []
