"""Connections are opened to any address of a name within the connect timeout."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest
import uvloop

from gateway.errors import NoBackend
from gateway.upstream.causes import Cause
from gateway.upstream.client import HttpClient
from gateway.upstream.connecting import Connector, race
from gateway.upstream.resolving import Address, Resolver, in_order
from tests.upstream.addresses import answering, dropping, get, names, resolving, v4, v6

LOOPS = pytest.mark.parametrize(
    "loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


@pytest.mark.parametrize(
    ("addresses", "turn", "avoided", "expected"),
    [
        ("6a 6b 4a 4b", 0, "", "6a 4a 6b 4b"),
        ("4a 6a 6b", 0, "", "4a 6a 6b"),
        ("6a 6b 4a 4b", 1, "", "6b 4b 6a 4a"),
        ("4a 4b 4c", 4, "", "4b 4c 4a"),
        ("6a 6b 4a 4b", 0, "6a 4b", "4a 6b 6a 4b"),
        ("4a", 7, "4a", "4a"),
        ("", 3, "", ""),
    ],
)
def test_order(addresses: str, turn: int, avoided: str, expected: str) -> None:
    """Families alternate, connections begin at different addresses, and avoided ones come last."""

    def made(text: str) -> list[Address]:
        return [v6(word) if word[0] == "6" else v4(word) for word in text.split()]

    assert in_order(made(addresses), turn, set(made(avoided))) == made(expected)


@LOOPS
@pytest.mark.parametrize("holes", [1, 4])
def test_addresses_that_drop_packets(loop: Callable[[], asyncio.AbstractEventLoop], holes: int) -> None:
    """Each address is tried within the connect timeout, although those before it never respond."""

    async def ask() -> tuple[int, list[str]]:
        deaf = [f"127.0.0.{n}" for n in range(2, 2 + holes)]
        async with answering("127.0.0.1") as (port, connections):
            with contextlib.ExitStack() as stack:
                for host in deaf:
                    stack.enter_context(dropping(host, port))
                async with resolving(names(dual=[*deaf, "127.0.0.1"])) as client:
                    status = await get(client, f"http://dual:{port}", connect=1.6)
            return status, connections

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(ask()) == (200, ["127.0.0.1"])


async def test_an_address_that_was_overtaken_comes_last() -> None:
    """The next connection does not wait for it again."""
    async with answering("127.0.0.1") as (port, _):
        dual = v4("127.0.0.2", port), v4("127.0.0.1", port)
        connector = Connector(Resolver(lambda *_: dual, lambda: 0.0))
        client = HttpClient(keep_alive=4, connector=connector)
        with dropping("127.0.0.2", port):
            assert await get(client, f"http://dual:{port}") == 200
            for _ in range(2):
                assert connector._order("dual", dual)[-1] == dual[0]
        client.close()


async def test_more_addresses_than_one_connection_tries() -> None:
    """If all that were tried fail, the next connection begins with the others."""
    async with answering("127.0.0.1") as (port, _):
        refusing = [f"127.0.1.{n}" for n in range(1, 31)]
        async with resolving(names(dual=[*refusing, "127.0.0.1"])) as client:
            with pytest.raises(NoBackend):
                await get(client, f"http://dual:{port}")
            assert await get(client, f"http://dual:{port}") == 200


async def test_an_address_that_refuses() -> None:
    """The next one is tried at once."""
    async with (
        answering("127.0.0.1") as (port, _),
        resolving(names(dual=["127.0.0.2", "127.0.0.1"])) as client,
    ):
        assert await get(client, f"http://dual:{port}") == 200


async def test_the_cause_is_that_of_the_address_that_got_furthest() -> None:
    """If no address works, a refusal says more than silence."""
    async with answering("127.0.0.1") as (port, _):
        with dropping("127.0.0.2", port):
            async with resolving(names(dual=["127.0.0.2", "127.0.0.3"], hole=["127.0.0.2"])) as client:
                with pytest.raises(NoBackend) as refused:
                    await get(client, f"http://dual:{port}", connect=0.5)
                with pytest.raises(NoBackend) as silent:
                    await get(client, f"http://hole:{port}", connect=0.1)

    assert refused.value.detail == Cause("refused", f"127.0.0.3:{port}")
    assert silent.value.detail == Cause("connect_timeout", f"127.0.0.2:{port}")


async def test_connections_are_spread() -> None:
    """With several addresses, new connections do not all go to the first."""
    hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    async with answering(*hosts) as (port, connections), resolving(names(many=hosts)) as client:
        for _ in range(6):
            await get(client, f"http://many:{port}", age=0)

    assert sorted(connections) == sorted(2 * hosts)


class Opened(asyncio.BaseTransport):
    closed = False

    def close(self) -> None:
        self.closed = True


async def test_two_that_succeed_at_once() -> None:
    """Of two connections that open together, one is used and the other closed."""
    go, transports = asyncio.Event(), [Opened(), Opened()]

    async def attempt(transport: Opened) -> tuple[asyncio.BaseTransport, asyncio.Protocol]:
        await go.wait()
        return transport, asyncio.Protocol()

    racing = asyncio.create_task(race([lambda t=t: attempt(t) for t in transports], 0))
    await asyncio.sleep(0.02)
    go.set()
    used, _ = await racing
    await asyncio.sleep(0)

    assert sorted((t is used, t.closed) for t in transports) == [(False, True), (True, False)]
