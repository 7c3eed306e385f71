"""Keeps heads in the store, with the log of their promotions. It blocks: call it in a thread."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway.evidence.database import explained, writing
from gateway.evidence.heads.log import HeadProblem, in_force, promoted, rolled_back
from gateway.evidence.rows import HeadRow, PromotionRow
from gateway.evidence.schema import heads, promotions
from router_model.artifact import PackedHead
from router_model.head import Head

LARGEST_HEAD = 20 * 2**20
"""Bytes of a head in the store."""
_KEPT = 50
"""Heads that are kept. Those before are deleted, but for the one that decides and the one before it."""
_SHOWN = [heads.c[name] for name in HeadRow.__struct_fields__]


def add_head(engine: Engine, packed: PackedHead, head: Head) -> str:
    """Keep a head as a candidate, and return its version. head: what the files contain.

    One that is there already stays as it is. Raises: HeadProblem, EvidenceUnavailable.
    """
    size = len(packed.manifest) + len(packed.arrays)
    if size > LARGEST_HEAD:
        raise HeadProblem(f"the head takes {size:,} bytes, more than {LARGEST_HEAD:,}")
    known = {name: list(curves.tiers) for name, curves in head.sets.items()}
    values = {
        "version": head.version,
        "made_at": time.time(),
        "models": msgspec.json.encode(known).decode(),
        "state": "candidate",
        "size": size,
        "manifest": packed.manifest,
        "arrays": packed.arrays,
    }
    with explained(), writing(engine) as connection:
        if not connection.scalar(select(heads.c.version).where(heads.c.version == head.version)):
            connection.execute(insert(heads).values(values))
            _forget_oldest(connection)
    return head.version


def list_heads(engine: Engine) -> list[HeadRow]:
    """All heads, newest first. Raises: EvidenceUnavailable."""
    with explained(), engine.connect() as connection:
        return [_row(found) for found in connection.execute(select(*_SHOWN).order_by(heads.c.made_at.desc()))]


def newest_candidate(engine: Engine) -> str | None:
    """The version of the newest head that has not decided yet. Raises: EvidenceUnavailable."""
    some = select(heads.c.version).where(heads.c.state == "candidate")
    with explained(), engine.connect() as connection:
        found: str | None = connection.scalar(some.order_by(heads.c.made_at.desc()).limit(1))
    return found


def find_head(engine: Engine, version: str) -> HeadRow:
    """The head with this version, or the only one whose version begins so.

    Raises: HeadProblem, EvidenceUnavailable.
    """
    known = list_heads(engine)
    found = [row for row in known if row.version == version] or [
        row for row in known if row.version.startswith(version)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise HeadProblem(f"several heads begin with {version}: {', '.join(row.version for row in found)}")
    raise HeadProblem(f"there is no head {version[:200]} in the store")


def stored_head(engine: Engine, version: str) -> PackedHead:
    """The files of a head, unchecked. Raises: HeadProblem, EvidenceUnavailable."""
    query = select(heads.c.size, heads.c.manifest, heads.c.arrays).where(heads.c.version == version)
    with explained(), engine.connect() as connection:
        found = connection.execute(query).one_or_none()
    if found is None:
        raise HeadProblem(f"there is no head {version} in the store")
    if len(found.manifest) + len(found.arrays) > LARGEST_HEAD:
        raise HeadProblem(f"the head {version} takes more than {LARGEST_HEAD:,} bytes")
    return PackedHead(bytes(found.manifest), bytes(found.arrays))


def judge_head(engine: Engine, version: str, verdict: Mapping[str, Any]) -> None:
    """Keep what the gate says about a head. verdict: `passes`, `reasons` and figures.

    Raises: HeadProblem, EvidenceUnavailable.
    """
    text = msgspec.json.encode(verdict).decode()
    with explained(), writing(engine) as connection:
        if not connection.execute(
            update(heads).where(heads.c.version == version).values(verdict=text)
        ).rowcount:
            raise HeadProblem(f"there is no head {version} in the store")


def promotion_log(engine: Engine) -> list[PromotionRow]:
    """All lines, oldest first. Raises: EvidenceUnavailable."""
    with explained(), engine.connect() as connection:
        return _log(connection)


def newest_promotion(engine: Engine) -> PromotionRow | None:
    """The line that is in force; None if there is none. Raises: EvidenceUnavailable."""
    with explained(), engine.connect() as connection:
        found = connection.execute(_LINES.order_by(promotions.c.number.desc()).limit(1)).one_or_none()
    return None if found is None else PromotionRow(*found)


def promote_head(
    engine: Engine, version: str, *, by: str, why: str, now: float | None = None
) -> PromotionRow:
    """Put a head in force on all gateways of the store. by: who says so.

    Raises: HeadProblem, EvidenceUnavailable.
    """
    now = time.time() if now is None else now
    with explained(), _one_writer(), writing(engine) as connection:
        if not connection.scalar(select(heads.c.version).where(heads.c.version == version)):
            raise HeadProblem(f"there is no head {version} in the store")
        return _append(connection, promoted(_log(connection), version, now, by, why))


def roll_back(engine: Engine, *, by: str, why: str, now: float | None = None) -> PromotionRow:
    """Put the head before in force on all gateways of the store.

    Raises: HeadProblem, EvidenceUnavailable.
    """
    now = time.time() if now is None else now
    with explained(), _one_writer(), writing(engine) as connection:
        line = rolled_back(_log(connection), now, by, why)
        if line.head and not connection.scalar(select(heads.c.version).where(heads.c.version == line.head)):
            raise HeadProblem(f"the head before, {line.head}, is no longer in the store")
        return _append(connection, line)


_LINES = select(*(promotions.c[name] for name in PromotionRow.__struct_fields__))


class _one_writer:  # noqa: N801 - used like a function
    """Explains that two promotions at once got the same number, of which one is refused."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, IntegrityError):
            raise HeadProblem("another head was promoted at the same moment: look again") from error


def _log(connection: Connection) -> list[PromotionRow]:
    return [PromotionRow(*line) for line in connection.execute(_LINES.order_by(promotions.c.number))]


def _append(connection: Connection, line: PromotionRow) -> PromotionRow:
    """Add a line, and name the state of the two heads that it is about."""
    connection.execute(insert(promotions).values(msgspec.structs.asdict(line)))
    for version, state in ((line.previous, "retired"), (line.head, "promoted")):
        if version is not None:
            connection.execute(update(heads).where(heads.c.version == version).values(state=state))
    return line


def _forget_oldest(connection: Connection) -> None:
    needed = [version for version in in_force(_log(connection))[-2:] if version]
    oldest = select(heads.c.version).order_by(heads.c.made_at.desc()).offset(_KEPT)
    gone = [version for version in connection.scalars(oldest) if version not in needed]
    if gone:
        connection.execute(heads.delete().where(heads.c.version.in_(gone)))


def _row(found: Any) -> HeadRow:
    models = msgspec.json.decode(found.models, type=dict[str, list[str]])
    verdict = msgspec.json.decode(found.verdict, type=dict[str, Any]) if found.verdict else None
    return HeadRow(found.version, found.made_at, models, found.state, verdict, found.size)
