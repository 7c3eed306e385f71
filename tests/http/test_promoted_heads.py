"""A promoted head decides on all gateways of a store, without a dropped request; a bad one on none."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, update

from gateway.config.evidence import EvidenceSettings
from gateway.config.loader import parse_file
from gateway.evidence.database import open_store, writing
from gateway.evidence.heads import following
from gateway.evidence.heads.archive import add_head, promote_head, roll_back
from gateway.evidence.schema import heads, promotions
from gateway.snapshot import HeadUnfit, Snapshot
from router_model.artifact import PackedHead, pack_artifact
from router_model.head import ARTIFACTS, Head
from tests.fakes.backend import Backend
from tests.http.raw_http import ask
from tests.serving import Running, configuration, serving

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "2 + 2?"}]}


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "FOLLOW_SECONDS", 0.02)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "evidence.db"


@pytest.fixture
def store(file: Path) -> Iterator[Engine]:
    engine = open_store(EvidenceSettings(file=str(file)))
    yield engine
    engine.dispose()


@pytest.fixture
def settings(backend: Backend, file: Path) -> dict[str, Any]:
    return configuration(backend.url, evidence={"file": str(file)})


@pytest.fixture
async def running(settings: dict[str, Any]) -> AsyncIterator[Running]:
    async with serving(settings) as running:
        yield running


def renamed(name: str) -> PackedHead:
    """The head `tiny` under another name."""
    packed = pack_artifact(ARTIFACTS / "tiny")
    return packed._replace(manifest=json.dumps(json.loads(packed.manifest) | {"name": name}).encode())


def kept(store: Engine, name: str = "tiny") -> str:
    """Keep the head `tiny` under a name, and return its version."""
    packed = renamed(name)
    return add_head(store, packed, Head.unpack(packed, name))


def head_of(running: Running) -> str:
    return running.gateway.snapshot.router.versions["head"]


async def decided_by(running: Running, head: str) -> None:
    async with asyncio.timeout(20):
        while head_of(running) != head:
            await asyncio.sleep(0.01)


async def told(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async with asyncio.timeout(20):
        while text not in caplog.text:
            await asyncio.sleep(0.01)


async def test_all_gateways_follow_without_a_dropped_request(settings: dict[str, Any], store: Engine) -> None:
    """Requests go on meanwhile, and each decision names the head that made it."""
    version = kept(store)
    async with serving(settings) as one, serving(settings) as two:
        configured = head_of(one)
        ended = asyncio.Event()

        async def traffic(running: Running) -> set[int]:
            statuses = set()
            while not ended.is_set():
                statuses.add((await ask(running.http, running.url, CHAT, BODY)).status)
            return statuses

        clients = [asyncio.create_task(traffic(each)) for each in (one, two) for _ in range(2)]
        await asyncio.gather(one.recorded(3), two.recorded(3))
        promote_head(store, version, by="alice", why="better")
        await asyncio.gather(decided_by(one, version), decided_by(two, version))
        seen = len(one.records), len(two.records)
        await asyncio.gather(one.recorded(seen[0] + 4), two.recorded(seen[1] + 4))
        ended.set()

        assert set().union(*await asyncio.gather(*clients)) == {200}
        for each in (one, two):
            named = [record.decision.versions["head"] for record in each.records if record.decision]
            assert {named[0], named[-1]} == {configured, version}

        roll_back(store, by="alice", why="worse")
        await asyncio.gather(decided_by(one, configured), decided_by(two, configured))


async def test_a_gateway_begins_with_the_promoted_head(settings: dict[str, Any], store: Engine) -> None:
    version = kept(store)
    promote_head(store, version, by="alice", why="")

    async with serving(settings) as running:
        await decided_by(running, version)


async def test_a_store_that_is_away_leaves_the_head_of_the_configuration(
    backend: Backend, tmp_path: Path
) -> None:
    folder = tmp_path / "evidence.db"
    folder.mkdir()
    async with serving(configuration(backend.url, evidence={"file": str(folder)})) as running:
        answer = await ask(running.http, running.url, CHAT, BODY)

        assert answer.status == 200
        assert running.gateway.snapshot.promoted is None


async def test_a_reload_keeps_the_promoted_head(
    running: Running, settings: dict[str, Any], store: Engine
) -> None:
    version = kept(store)
    promote_head(store, version, by="alice", why="")
    await decided_by(running, version)

    raw = json.dumps(settings | {"price": 1.0}).encode()
    running.gateway.reload(running.gateway._load(raw))

    assert head_of(running) == version
    assert running.gateway.snapshot.settings.price == 1.0


def test_a_configuration_that_it_does_not_fit_gets_its_own_head(
    settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """For example one for other models."""
    other = settings | {"models": {"other": settings["models"]["tiny"]}}

    snapshot = Snapshot.read(json.dumps(other).encode(), renamed("tiny"))

    assert snapshot.promoted is None
    assert "it knows tiny, and none of other at these tiers" in caplog.text


def test_a_head_for_shorter_rungs_does_not_fit(settings: dict[str, Any]) -> None:
    """Its estimates for the longest tier would be guesses."""
    tiers = {"quick": {"thinking": 0, "answer": 32}, "endless": {"thinking": 4096, "answer": 32}}
    settings["models"]["tiny"]["tiers"] = tiers
    with pytest.raises(HeadUnfit, match="tiny was not measured up to endless"):
        Snapshot.build(*parse_file(json.dumps(settings).encode()), renamed("tiny"))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"arrays": b"PK"}, "damaged"),
        ({"manifest": b"{"}, "not a manifest"),
        ({"manifest": b""}, "not a manifest"),
    ],
)
async def test_a_damaged_head_is_not_taken(
    running: Running, store: Engine, caplog: pytest.LogCaptureFixture, change: dict[str, bytes], cause: str
) -> None:
    """The log says why, once, and the incumbent stays. A later good head is taken."""
    caplog.set_level(logging.INFO)
    configured, good, bad = head_of(running), kept(store), kept(store, "bad")
    with writing(store) as connection:
        connection.execute(update(heads).where(heads.c.version == bad).values(change))
    promote_head(store, bad, by="alice", why="")

    await told(caplog, "is not taken")
    await asyncio.sleep(0.1)

    assert [cause in line for line in caplog.messages if "is not taken" in line] == [True]
    assert head_of(running) == configured
    promote_head(store, good, by="alice", why="")
    await decided_by(running, good)


async def test_a_head_that_is_gone_is_not_taken(
    running: Running, store: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    bad = kept(store)
    promote_head(store, bad, by="alice", why="")
    await decided_by(running, bad)
    promote_head(store, kept(store, "gone"), by="alice", why="")
    with writing(store) as connection:
        connection.execute(delete(heads).where(heads.c.version.startswith("gone")))

    await told(caplog, "no head gone")
    assert head_of(running) == bad


async def test_a_store_restored_from_a_backup_is_not_followed(
    running: Running, store: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """What was promoted since the backup goes on deciding, until somebody promotes a head again."""
    old, new = kept(store, "old"), kept(store, "new")
    promote_head(store, old, by="alice", why="")
    promote_head(store, new, by="alice", why="")
    await decided_by(running, new)
    with writing(store) as connection:
        connection.execute(delete(promotions).where(promotions.c.number == 2))

    await told(caplog, "restored from a backup")
    assert head_of(running) == new
    promote_head(store, kept(store, "third"), by="alice", why="")
    await decided_by(running, renamed("third").version)
