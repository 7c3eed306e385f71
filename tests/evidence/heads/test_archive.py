"""Heads are kept and promoted in a store, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, update

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import open_store, writing
from gateway.evidence.heads import archive
from gateway.evidence.heads.archive import (
    add_head,
    find_head,
    judge_head,
    list_heads,
    newest_promotion,
    promote_head,
    promotion_log,
    roll_back,
    stored_head,
)
from gateway.evidence.heads.log import HeadProblem
from gateway.evidence.schema import heads
from router_model.artifact import ArtifactError, PackedHead, pack_artifact
from router_model.head import ARTIFACTS, Head, load_named


@pytest.fixture
def engine(settings: EvidenceSettings) -> Iterator[Engine]:
    engine = open_store(settings)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def packed() -> PackedHead:
    return pack_artifact(ARTIFACTS / "tiny")


@pytest.fixture(scope="module")
def tiny() -> Head:
    return load_named("tiny")


def test_a_head_comes_back_as_it_was(engine: Engine, packed: PackedHead, tiny: Head) -> None:
    version = add_head(engine, packed, tiny)
    add_head(engine, packed, tiny)

    assert version == packed.version
    again = Head.unpack(stored_head(engine, version), version)
    assert again.version == version
    (row,) = list_heads(engine)
    assert (row.version, row.state, row.verdict) == (version, "candidate", None)
    assert row.models == {"tiny": list(tiny.sets["tiny"].tiers)}
    assert row.size == len(packed.manifest) + len(packed.arrays)
    assert find_head(engine, version[:8]) == row


def test_a_damaged_head_is_named(engine: Engine, packed: PackedHead, tiny: Head) -> None:
    version = add_head(engine, packed, tiny)
    with writing(engine) as connection:
        connection.execute(update(heads).values(arrays=packed.arrays[:-100]))

    with pytest.raises(ArtifactError, match=r"tiny.*damaged"):
        Head.unpack(stored_head(engine, version), version)


def test_too_large_a_head_is_refused(engine: Engine, packed: PackedHead, tiny: Head) -> None:
    with pytest.raises(HeadProblem, match="more than 20,971,520"):
        add_head(engine, PackedHead(packed.manifest, bytes(archive.LARGEST_HEAD)), tiny)


def test_promote_and_roll_back(engine: Engine, packed: PackedHead, tiny: Head) -> None:
    """The log says who did what and why, and the heads their state."""
    for name in ("a", "b"):
        add_head(engine, packed, replace(tiny, name=name))
    (b, a) = (row.version for row in list_heads(engine))

    promote_head(engine, a, by="alice", why="better")
    promote_head(engine, b, by="alice", why="better still")
    assert {row.version: row.state for row in list_heads(engine)} == {a: "retired", b: "promoted"}
    line = roll_back(engine, by="bob", why="worse after all")

    assert newest_promotion(engine) == line
    assert (line.number, line.head, line.previous, line.by, line.why) == (3, a, b, "bob", "worse after all")
    assert {row.version: row.state for row in list_heads(engine)} == {a: "promoted", b: "retired"}
    assert [each.action for each in promotion_log(engine)] == ["promote", "promote", "rollback"]
    assert roll_back(engine, by="bob", why="").head is None


@pytest.mark.parametrize(
    "act",
    [
        lambda engine: promote_head(engine, "unknown", by="", why=""),
        lambda engine: stored_head(engine, "unknown"),
        lambda engine: find_head(engine, "unknown"),
        lambda engine: judge_head(engine, "unknown", {}),
        lambda engine: roll_back(engine, by="", why=""),
    ],
)
def test_what_is_not_there_is_named(engine: Engine, act: Any) -> None:
    with pytest.raises(HeadProblem, match=r"there is no head unknown|none to roll back"):
        act(engine)


def test_a_verdict_is_kept(engine: Engine, packed: PackedHead, tiny: Head) -> None:
    version = add_head(engine, packed, tiny)

    judge_head(engine, version, {"passes": False, "reasons": ["too few"]})

    assert find_head(engine, version).verdict == {"passes": False, "reasons": ["too few"]}


def test_old_heads_are_forgotten(
    engine: Engine, packed: PackedHead, tiny: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the newest, the one that decides, and the one before it."""
    monkeypatch.setattr(archive, "_KEPT", 2)
    small = PackedHead(packed.manifest, b"")
    versions = [add_head(engine, small, replace(tiny, name="h0"))]
    promote_head(engine, versions[0], by="", why="")
    versions += [add_head(engine, small, replace(tiny, name=f"h{n}")) for n in range(1, 5)]

    assert {row.version for row in list_heads(engine)} == {versions[0], *versions[3:]}
