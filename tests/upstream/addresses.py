"""Servers at several addresses of this machine, and clients with a DNS of their own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

from gateway.upstream.client import HttpClient
from gateway.upstream.connecting import Connector
from gateway.upstream.resolving import Address, Resolver

Lookup = Callable[[str, int], tuple[Address, ...]]


def v4(host: str, port: int = 80) -> Address:
    return Address(socket.AF_INET, (host, port))


def v6(host: str, port: int = 80) -> Address:
    return Address(socket.AF_INET6, (host, port, 0, 0))


def names(**hosts: list[str]) -> Lookup:
    """A DNS in which each name has these addresses, as they are at the time of the lookup."""
    return lambda host, port: tuple(v4(address, port) for address in hosts[host])


class Answering(asyncio.Protocol):
    """Answers every request; `connections` keeps the address of each new connection."""

    def __init__(self, connections: list[str], open_now: set[Answering]) -> None:
        self.connections = connections
        self.open_now = open_now

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.open_now.add(self)
        self.connections.append(transport.get_extra_info("sockname")[0])

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self.open_now.discard(self)


@asynccontextmanager
async def answering(*hosts: str) -> AsyncIterator[tuple[int, list[str]]]:
    """Servers at these addresses, all with one port. Yields it, and the address of each new connection."""
    loop, connections, open_now = asyncio.get_running_loop(), list[str](), set[Answering]()
    async with contextlib.AsyncExitStack() as stack:
        port = 0
        for host in hosts:
            made = loop.create_server(lambda: Answering(connections, open_now), host, port)
            server = await stack.enter_async_context(await made)
            port = server.sockets[0].getsockname()[1]
        yield port, connections
    async with asyncio.timeout(10):
        while open_now:
            await asyncio.sleep(0.001)


@contextlib.contextmanager
def dropping(host: str, port: int) -> Iterator[None]:
    """A server that takes no connection: its queue is full, so the system drops the packets to it."""
    with contextlib.ExitStack() as stack:
        hole = stack.enter_context(socket.socket())
        hole.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        hole.bind((host, port))
        hole.listen(0)
        for _ in range(4):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex((host, port))
        yield


async def get(client: HttpClient, url: str, *, connect: float = 10, age: float = 300) -> int:
    response = await client.request(b"GET", url, "/", [], b"", connect=connect, age=age)
    await response.read(1 << 20)
    return response.status


@asynccontextmanager
async def resolving(lookup: Lookup, clock: Callable[[], float] = lambda: 0.0) -> AsyncIterator[HttpClient]:
    """A client with its own DNS."""
    client = HttpClient(keep_alive=4, connector=Connector(Resolver(lookup, clock)))
    yield client
    client.close()
    await asyncio.sleep(0)
