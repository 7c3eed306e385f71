"""Requests of one session go to one replica, and only the sessions of a lost replica move."""

from __future__ import annotations

from tests.fakes.fault import Fault
from tests.http.wire import ask, asked, connection, post, post_recorded, replicated, until, wired
from tests.serving import Running

SESSIONS = [f"session-{number}" for number in range(24)]
STICKY = {"affinity_header": "X-Session-Id"}


async def home(running: Running, session: str) -> str:
    """The replica that serves a request of this session."""
    answer = await post(running, headers={"x-session-id": session})
    assert answer.status == 200
    return answer.headers["x-thinkmeter-backend"]


async def homes(running: Running) -> dict[str, str]:
    return {session: await home(running, session) for session in SESSIONS}


async def test_a_session_stays() -> None:
    """The same value goes to the same replica each time, and many values spread over all replicas."""
    async with replicated(3, **STICKY) as (running, backends):
        first = await homes(running)
        assert first == await homes(running) == await homes(running)

        assert set(first.values()) == {"a", "b", "c"}
        assert sum(len(asked(backend)) for backend in backends) == 3 * len(SESSIONS)


async def test_it_survives_a_restart_of_the_gateway() -> None:
    """The choice depends only on names, so all gateways make the same one, also after a restart."""
    found = []
    for _ in range(2):
        async with replicated(2, **STICKY) as (running, _):
            found.append(await homes(running))

    assert found[0] == found[1]


async def test_a_lost_replica_moves_only_its_own() -> None:
    """If a replica goes away, only its sessions move; when it returns, they return."""
    health = {"interval": 0.02, "timeout": 20, "failures": 2}
    async with replicated(3, health=health, **STICKY) as (running, backends):
        before = await homes(running)
        await backends[1].down()
        await until(lambda: running.gateway.snapshot.backends()[1][1].healthy is False)
        during = await homes(running)
        await backends[1].up()
        await until(lambda: running.gateway.snapshot.backends()[1][1].healthy)
        after = await homes(running)

        assert "b" not in during.values()
        assert {session for session in SESSIONS if before[session] != during[session]} == {
            session for session in SESSIONS if before[session] == "b"
        }
        assert after == before


async def test_affinity_outranks_load() -> None:
    """A session stays with its replica even if another one is idle, because of the prefix cache."""
    async with replicated(**STICKY) as (running, (a, b)):
        place = await home(running, "mine")
        backend = {"a": a, "b": b}[place]
        backend.script(Fault(after=1, end="stall"))
        async with connection(running) as (_, writer):
            writer.write(wired(ask(stream=True), "/v1/chat/completions", "x-session-id: mine"))
            await backend.wait_until(lambda found: found.in_flight)
            assert await home(running, "mine") == place


async def test_affinity_yields_to_failure() -> None:
    """If the replica of a session fails, the other one serves its request."""
    async with replicated(**STICKY) as (running, (a, b)):
        place = await home(running, "mine")
        {"a": a, "b": b}[place].script(Fault(status=503))
        answer, record = await post_recorded(running, headers={"x-session-id": "mine"})

        assert (answer.status, record.attempts) == (200, 2)
        assert record.backend != place
        assert await home(running, "mine") == place


async def test_requests_without_a_session_take_turns() -> None:
    """Without the header, or with an empty one, the least busy replica gets the request."""
    async with replicated(**STICKY) as (running, (a, b)):
        for headers in ({}, {"x-session-id": ""}):
            for _ in range(4):
                await post(running, headers=headers)

        assert (len(asked(a)), len(asked(b))) == (4, 4)


async def test_affinity_is_off_by_default() -> None:
    """Without `affinity_header`, the header has no effect."""
    async with replicated() as (running, (a, b)):
        for _ in range(6):
            await home(running, "mine")

        assert (len(asked(a)), len(asked(b))) == (3, 3)
