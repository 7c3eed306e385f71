"""The exchange in the ordinary case changes the windows exactly as the scripts with all rules do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.store.commands import JournalEntry, JournalPart, ReserveCommand, exchange_call, unpacked, window
from gateway.store.scripts import sources
from tests.redis import FAKE_CLOCK, FAKE_TIME, RealRedis, binaries, real_redis

LEASE_MS, START = 4_000, 1_800_000_000_000
LEFT_OUT = "local done = ordinary()"
NAMES = ("minute", "hour", "other")
WINDOWS = {
    prefix: tuple(window(f"{{{prefix}}}", name, 60 * 60**i, "*", 10_000) for i, name in enumerate(NAMES))
    for prefix in ("fast", "full")
}

Exchange = tuple[int, list[tuple[list[int], int, int]], list[tuple[int, bool, int, int]]]
"""Milliseconds since the last; requests: windows, amount, cheaper; settlements: which, unknown, tokens."""

EXCHANGES = st.lists(
    st.tuples(
        st.sampled_from((0, 1, 40, 900, 1_500, 5_000, -30)),
        st.lists(
            st.tuples(
                st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True),
                st.integers(0, 6_000),
                st.integers(0, 100),
            ),
            max_size=3,
        ),
        st.lists(
            st.tuples(st.integers(0, 9), st.booleans(), st.integers(0, 300), st.integers(0, 300)), max_size=3
        ),
    ),
    min_size=4,
    max_size=25,
)  # fmt: skip


@pytest.fixture(scope="module", params=list(binaries()))
def server(request: pytest.FixtureRequest) -> Iterator[RealRedis]:
    with real_redis(binaries()[request.param]) as running:
        yield running


class Gateway:
    """Sends the same calls to the windows of one prefix."""

    def __init__(self, client: Any, prefix: str, script: str) -> None:
        self.client, self.prefix, self.run = client, prefix, client.register_script(script)
        self.windows, self.sequence, self.ids = WINDOWS[prefix], 0, 0
        self.held: list[tuple[str, list[int]]] = []

    def exchange(self, requests: list[Any], settlements: list[Any]) -> Any:
        asked, entries = [], []
        for which, unknown, spent, expected in settlements:
            id_, places = self.held[which % len(self.held)] if self.held else ("none", [0])
            self.sequence += 1
            name = f"{id_}?" if unknown and which == 0 else id_
            under = tuple(self.windows[place] for place in places)
            numbers = [(spent, expected)] * len(under)
            entries.append(JournalEntry("settle", name, under, numbers, self.sequence))
        for places, amount, cheaper in requests:
            self.ids += 1
            id_, under = f"g-{self.ids}", tuple(self.windows[place] for place in places)
            amounts = (amount, min(cheaper, amount))
            asked.append((id_, ReserveCommand(under, (0,) * len(under), (amounts,) * len(under))))
            self.held.append((id_, places))
        part = JournalPart(f"{{{self.prefix}}}:journal", max(self.sequence - len(entries), 0), entries)
        keys, arguments = exchange_call(
            part if entries else None, asked, caps=f"{{{self.prefix}}}:caps", lease_ms=LEASE_MS
        )
        return unpacked("exchange", self.run(keys=keys, args=arguments))

    def state(self) -> Any:
        client = self.client
        return [
            (client.hgetall(w.key), client.zrange(w.leases, 0, -1, withscores=True), client.exists(w.leases))
            for w in self.windows
        ] + [client.get(f"{{{self.prefix}}}:journal")]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(exchanges=EXCHANGES)
def test_same_state_and_replies(server: RealRedis, exchanges: list[Exchange]) -> None:
    script = sources(FAKE_CLOCK)["exchange"]
    assert LEFT_OUT in script
    with server.client() as client:
        client.flushall()
        fast, full = (
            Gateway(client, prefix, text)
            for prefix, text in (("fast", script), ("full", script.replace(LEFT_OUT, "local done = nil")))
        )
        now = START
        for later, requests, settlements in exchanges:
            now += later
            client.set(FAKE_TIME, now)
            assert fast.exchange(requests, settlements) == full.exchange(requests, settlements)
            assert fast.state() == full.state()


@pytest.mark.parametrize("riding", [0, 1, 3])
def test_it_is_taken(server: RealRedis, riding: int) -> None:
    """Without the other rules, a request that fits gets the same reply, with settlements that ride along."""
    script = sources(FAKE_CLOCK)["exchange"]
    with server.client() as client:
        client.flushall()
        client.set(FAKE_TIME, START)
        gateway = Gateway(client, "fast", script)
        for _ in range(4):
            gateway.exchange([([0, 1, 2], 100, 50)], [])
        gateway.run = client.register_script(script[: script.index("-- The sliding token budget")])
        now, applied, _, *replies = gateway.exchange(
            [([0, 1, 2], 100, 50)], [(which, False, 7, 9) for which in range(riding)]
        )
        assert (now, applied, len(replies), replies[0][0]) == (START, riding, 1, 1)
        assert replies[0][-1] == [10_000 - 400 + (100 - 7) * riding] * 3
