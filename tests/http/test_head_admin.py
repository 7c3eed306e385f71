"""The admin API of heads: with the admin key alone, and with a clear answer to everything else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import open_store
from gateway.evidence.heads import following
from gateway.evidence.heads.archive import add_head
from router_model.artifact import pack_artifact
from router_model.head import ARTIFACTS, load_named
from tests.evidence.made import eventually_async
from tests.fakes.backend import Backend
from tests.http.raw_http import Answer, ask
from tests.serving import Running, configuration, serving

ADMIN = {"authorization": "Bearer adm-s3cret"}


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "evidence.db")


@pytest.fixture
def version(file: str) -> str:
    """The version of a head in the store."""
    engine = open_store(EvidenceSettings(file=file))
    found = add_head(engine, pack_artifact(ARTIFACTS / "tiny"), load_named("tiny"))
    engine.dispose()
    return found


@pytest.fixture
async def running(backend: Backend, file: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    monkeypatch.setattr(following, "FOLLOW_SECONDS", 0.02)
    settings = configuration(backend.url, evidence={"file": file}, admin={"key": "adm-s3cret"})
    async with serving(settings) as running:
        assert running.gateway.evidence
        await eventually_async(lambda: running.gateway.evidence.writer.engine)
        yield running


async def call(running: Running, path: str, body: Any = None, method: str = "POST", **headers: str) -> Answer:
    return await ask(
        running.http, running.url, path, {} if body is None else body, method=method, **(headers or ADMIN)
    )


async def test_promote_and_roll_back(version: str, running: Running) -> None:
    """The gate must let it pass, or the admin must insist; the gateway follows."""
    refused = await call(running, f"/admin/heads/{version}/promote")
    assert (refused.status, refused.json["error"]["code"]) == (409, "head_refused")
    assert "nobody has compared it" in refused.json["error"]["message"]

    promoted = await call(running, f"/admin/heads/{version}/promote", {"why": "trial", "anyway": True})
    assert (promoted.status, promoted.json["head"], promoted.json["previous"]) == (200, version, None)
    await eventually_async(lambda: running.gateway.snapshot.router.versions["head"] == version)

    shown = (await call(running, "/admin/heads", method="GET")).json
    assert (shown["in_use"], shown["promoted"]) == (version, version)
    assert shown["heads"][0]["state"] == "promoted"
    assert (shown["promotions"][0]["by"], shown["promotions"][0]["why"]) == ("admin", "trial")

    assert (await call(running, "/admin/heads/rollback")).json["head"] is None
    await eventually_async(lambda: running.gateway.snapshot.router.versions["head"] != version)
    assert (await call(running, "/admin/heads/rollback")).status == 409


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/admin/heads"), ("POST", "/admin/heads/rollback"), ("POST", "/admin/heads/x/promote")],
)
async def test_only_with_the_admin_key(running: Running, method: str, path: str) -> None:
    answer = await call(running, path, method=method, authorization="Bearer wrong")

    assert answer.status == 401


@pytest.mark.parametrize("body", [{"anyway": 7}, {"force": True}, {"why": "x" * 1_001}, []])
async def test_a_bad_body_is_refused(running: Running, version: str, body: Any) -> None:
    answer = await call(running, f"/admin/heads/{version}/promote", body)

    assert answer.status == 400


async def test_without_a_store(backend: Backend) -> None:
    async with serving(configuration(backend.url, admin={"key": "adm-s3cret"})) as running:
        answer = await call(running, "/admin/heads", method="GET")

    assert (answer.status, answer.json["error"]["code"]) == (404, "evidence_off")
