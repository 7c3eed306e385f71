"""DNS: changed answers are followed, and a server that hangs or fails delays only its own names."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from gateway.errors import NoBackend
from gateway.upstream.causes import Cause
from gateway.upstream.client import HttpClient
from gateway.upstream.resolving import Address
from tests.upstream.addresses import answering, get, names, resolving, v4


async def test_a_changed_answer_is_followed() -> None:
    """A busy connection is used until it is too old; then the name is looked up again."""
    hosts = ["127.0.0.1"]
    servers = answering("127.0.0.1", "127.0.0.2")
    async with servers as (port, connections), resolving(names(moving=hosts)) as client:
        for _ in range(3):
            await get(client, f"http://moving:{port}", age=0.2)
        hosts[:] = ["127.0.0.2"]
        async with asyncio.timeout(10):
            while connections[-1] != "127.0.0.2":
                await get(client, f"http://moving:{port}", age=0.2)
                await asyncio.sleep(0.01)

    assert set(connections[:-1]) == {"127.0.0.1"}


async def test_a_lookup_that_hangs_delays_no_other_name() -> None:
    """Forty requests wait for one lookup of their name, and other names are looked up meanwhile."""
    go, asked = threading.Event(), list[str]()

    def lookup(host: str, port: int) -> tuple[Address, ...]:
        asked.append(host)
        if host == "hangs":
            go.wait(60)
        return (v4("127.0.0.1", port),)

    async with answering("127.0.0.1") as (port, _), resolving(lookup) as client:
        waiting = [asyncio.create_task(get(client, f"http://hangs:{port}")) for _ in range(40)]
        await asyncio.sleep(0)
        statuses = [await get(client, f"http://name{n}:{port}", age=0) for n in range(20)]
        assert not any(task.done() for task in waiting)
        go.set()
        assert {*statuses, *await asyncio.gather(*waiting)} == {200}

    assert asked.count("hangs") == 1


async def test_a_lookup_that_takes_too_long() -> None:
    """It ends with the connect timeout, and the cause is DNS."""
    go = threading.Event()

    def lookup(_: str, port: int) -> tuple[Address, ...]:
        go.wait(60)
        return (v4("127.0.0.1", port),)

    async with resolving(lookup) as client:
        with pytest.raises(NoBackend) as caught:
            await get(client, "http://hangs:80", connect=0.05)
        go.set()

    assert caught.value.detail == Cause("name_not_resolved", "hangs: no response of DNS in 0.05 s")


async def test_a_lookup_that_raises_something_else() -> None:
    """It fails like any other, and the next lookup of the name takes place."""
    failures: list[Exception] = [LookupError("unexpected")]

    def lookup(_: str, port: int) -> tuple[Address, ...]:
        if failures:
            raise failures.pop()
        return (v4("127.0.0.1", port),)

    async with answering("127.0.0.1") as (port, _), resolving(lookup) as client:
        with pytest.raises(NoBackend):
            await get(client, f"http://name:{port}")
        assert await get(client, f"http://name:{port}") == 200


async def test_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system has no more threads, a lookup fails and blocks none that come later."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with answering("127.0.0.1") as (port, _), resolving(names(name=["127.0.0.1"])) as client:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(NoBackend):
                await get(client, f"http://name:{port}")
        assert await get(client, f"http://name:{port}") == 200


async def test_dns_that_fails_for_a_while() -> None:
    """While DNS does not answer, the last addresses are used; a name that is gone is not."""
    failure: list[int] = []

    def lookup(_: str, port: int) -> tuple[Address, ...]:
        if failure:
            raise socket.gaierror(failure[0], "failed")
        return (v4("127.0.0.1", port),)

    now = 0.0
    async with answering("127.0.0.1") as (port, connections), resolving(lookup, lambda: now) as client:
        await get(client, f"http://name:{port}", age=0)
        failure.append(socket.EAI_AGAIN)
        await get(client, f"http://name:{port}", age=0)
        failure[:] = [socket.EAI_NONAME]
        now = 60.0
        with pytest.raises(NoBackend) as caught:
            await get(client, f"http://name:{port}", age=0)

    assert len(connections) == 2
    assert caught.value.detail == Cause("name_not_resolved", "name: failed")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70 + ".invalid", "a..b"])
async def test_names_that_do_not_resolve(host: str) -> None:
    """A name that is unknown or no name at all is one cause."""
    client = HttpClient(keep_alive=4)
    with pytest.raises(NoBackend) as caught:
        await get(client, f"http://{host}:80")

    assert isinstance(caught.value.detail, Cause)
    assert caught.value.detail.word == "name_not_resolved"
