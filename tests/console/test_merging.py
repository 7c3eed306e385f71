"""One console shows what all workers do."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.console.merging import merge_snapshots
from gateway.console.others import OtherWorkers, Question, Report


def backend(name: str, **changes: Any) -> dict[str, Any]:
    return {"model": "tiny", "name": name, "healthy": True, "breaker": "closed", "in_flight": 1} | changes


def snapshot(requests: int, **changes: Any) -> dict[str, Any]:
    sums = {"requests": requests, "right": 0.5, "tiers": {"short": requests}}
    usual = {"since": 10, "version": "1", "backends": [backend("a")], "sums": sums}
    return usual | {"seconds": [{"at": 20, "price": 0.1, "sums": sums}]} | changes


def test_sums_of_all_workers() -> None:
    """Numbers and tiers are added, also second by second. What all know alike is named once."""
    other = snapshot(
        3, since=5, seconds=[{"at": 19, "price": 1, "sums": {"requests": 1, "right": 0, "tiers": {}}}]
    )
    other["sums"]["tiers"] = {"long": 3}
    merged = merge_snapshots(snapshot(2), [other, snapshot(4)])

    assert merged["sums"] == {"requests": 9, "right": 1.5, "tiers": {"short": 6, "long": 3}}
    assert [(each["at"], each["sums"]["requests"]) for each in merged["seconds"]] == [(19, 1), (20, 6)]
    assert (merged["since"], merged["version"]) == (5, "1")


def test_replica_in_the_eyes_of_all() -> None:
    """A replica has the requests of all workers, and the state that the worker with the most trouble sees."""
    other = snapshot(1, backends=[backend("a", breaker="open", in_flight=4), backend("b", healthy=False)])
    merged = merge_snapshots(snapshot(1), [other])["backends"]

    assert [(b["name"], b["healthy"], b["breaker"], b["in_flight"]) for b in merged] == [
        ("a", True, "open", 5),
        ("b", False, "closed", 1),
    ]


async def test_decisions_are_asked_for_once() -> None:
    """Each question says what is known; the decisions come in the order of their time."""
    asked: list[Question] = []
    known = [
        [Report("w1", 2, [{"at": 3}, {"at": 5}], snapshot(2)), Report("w2", 1, [{"at": 4}], snapshot(1))]
    ]
    known += [[Report("w2", 2, [{"at": 9}], snapshot(2))]]

    async def ask(question: bytes) -> list[bytes]:
        asked.append(msgspec.json.decode(question, type=Question))
        return [msgspec.json.encode(report) for report in known.pop(0)]

    others = OtherWorkers(ask, kept=3)
    await others.refresh(0)
    assert others.decisions(0) == [{"at": 3}, {"at": 4}, {"at": 5}]
    await others.refresh(17)

    assert [(each.since, each.seen) for each in asked] == [(0, {}), (17, {"w1": 2, "w2": 1})]
    assert others.decisions(3) == [{"at": 9}]
    assert others.decisions(0) == [{"at": 4}, {"at": 5}, {"at": 9}]
    merged = others.merged(snapshot(1), since=20)
    assert merged["sums"]["requests"] == 1 + 2 + 2, "what an ended worker has done still counts"
    assert merged["backends"][0]["in_flight"] == 1 + 1, "but nothing of it is in flight"
