"""The Lua scripts and Python agree on the names and the order of the fields that they exchange."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Iterator
from importlib.resources import files

import pytest

from gateway.store.commands import ReserveCommand, ReserveReply, WindowState, window
from gateway.store.store import Store
from tests.redis import PATIENT, RealRedis, binaries, delivered, real_redis, reserved, running_store

DAY = window("{thinkmeter}", "day", 86_400, "*", 1_000)
STORED = {
    "SETTLED": "S",
    "RESERVED": "V",
    "REACHED": "T",
    "FIRST_END": "L",
    "NEWEST": "B",
    "CREDIT": "K",
    "CREDIT_END": "E",
    "ARRIVALS": "A",
    "LIMITED": "D",
    "SPENT": "U",
    "EXPECTED": "X",
    "TOUCHED": "H",
    "GRACE_END": "G",
    "MEMORY": "P",
    "AHEAD": "O",
    "ERA": "R",
}
"""The fields of a window's hash in every Redis that a release has written to."""


def source(script: str) -> str:
    return files("gateway.store").joinpath("lua", f"{script}.lua").read_text()


def listed(script: str, before: str) -> tuple[str, ...]:
    """The names in the table that follows `before`, one per line with a comment."""
    lines = source(script).split(before + " {\n")[1].splitlines()
    entries = (re.fullmatch(r"\s+(?:w\.)?(\w+),  -- .+", line) for line in lines)
    return tuple(entry[1] for entry in itertools.takewhile(bool, entries) if entry)


@pytest.mark.parametrize(
    ("script", "before", "message"),
    [("exchange", "return", ReserveReply), ("status", "replies[i + 1] =", WindowState)],
)
def test_replies_agree(script: str, before: str, message: type[ReserveReply | WindowState]) -> None:
    """A reply has the same names in the same order on both sides."""
    assert listed(script, before) == message._fields


def test_what_is_read_is_named() -> None:
    """window.lua gives each field that it reads its own name."""
    text = source("window")
    (fields,) = re.findall(r"local v = redis\.call\('HMGET', key, ([^)]*), unpack", text)
    named = re.findall(r"(\w+) = v\[(\d+)\]", text)
    assert [name.lower() for name in re.findall(r"\w+", fields)] == [name for name, _ in named]
    assert [int(position) for _, position in named] == list(range(1, len(named) + 1))
    rest = re.search(r"w\.key, (LIMITED[^)]*)\)\n +w\.rest, ([^=]*) = v", text)
    tally = re.search(r"w\.key, (SPENT[^)]*)\)\n +([^=]*) =", text)
    assert rest
    assert tally
    for read in (rest, tally):
        assert [f"w.{name.lower()}" for name in read[1].split(", ")] == read[2].split(", ")
    assert f"more = {{{tally[1]}, " in text


def test_stored_fields_stay() -> None:
    """The letters of stored fields never change, so that an upgrade can read what is there."""
    constants = dict(re.findall(r"^local ([A-Z_]+) = '(\w)'", source("window"), re.MULTILINE))
    assert constants == STORED
    assert "local MEMORY = 'P'" in source("pace")


@pytest.fixture(scope="module", params=list(binaries()))
def server(request: pytest.FixtureRequest) -> Iterator[RealRedis]:
    with real_redis(binaries()[request.param]) as running:
        yield running


@pytest.fixture
async def store(server: RealRedis) -> AsyncIterator[Store]:
    server.ask("FLUSHALL")
    async with running_store(server.url, timeout=PATIENT) as running:
        yield running


async def test_running_requests_in_the_way(store: Store) -> None:
    """A refusal says whether settled tokens or only running requests are in the way."""
    all_of_it = ReserveCommand((DAY,), (0,), ((1_000,),), minimum=1_000)
    id_, granted = await reserved(store, all_of_it)
    _, running = await reserved(store, all_of_it)
    store.journal.settle(id_, (DAY,), [(1_000, 0)])
    await delivered(store)
    _, spent = await reserved(store, all_of_it)

    assert (granted.candidate, granted.only_running) == (1, 0)
    assert (running.candidate, running.only_running, running.wait) == (0, 1, 1_000)
    assert (spent.candidate, spent.only_running) == (0, 0)
    assert spent.wait > 86_000_000


def test_names_with_colons_share_no_key() -> None:
    """The window of a model called `m:leases` is not the set of leases of the model `m`."""
    one, other = (window("{t}", "b", 60, holder, 5) for holder in ("m", "m:leases"))

    assert len({one.key, one.leases, other.key, other.leases}) == 4
