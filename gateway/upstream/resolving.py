"""Looks up the addresses of backends, so that a DNS server that hangs delays nothing but its own names."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from itertools import chain, zip_longest
from typing import Any, NamedTuple

_TRUSTED = 5.0  # seconds for which the last good answer is used without a lookup after DNS has failed


class Address(NamedTuple):
    """One address of a server."""

    family: int
    sockaddr: tuple[Any, ...]
    """As `socket` returns and takes it: host, port, and more for IPv6."""

    def __str__(self) -> str:
        host, port = self.sockaddr[:2]
        return f"[{host}]:{port}" if self.family == socket.AF_INET6 else f"{host}:{port}"


Answer = tuple[Address, ...] | OSError


def system_lookup(host: str, port: int, flags: int = 0) -> tuple[Address, ...]:
    """All addresses of a host, in the system's order of preference. Blocks.

    Raises: OSError.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except ValueError as error:  # not a name: for example a label of more than 63 characters
        raise socket.gaierror(socket.EAI_NONAME, str(error)) from None
    return tuple(dict.fromkeys(Address(family, sockaddr) for family, _, _, _, sockaddr in found))


def in_order(addresses: Sequence[Address], turn: int, avoided: Collection[Address]) -> list[Address]:
    """The order in which to try addresses: families alternate (RFC 8305), and `avoided` ones come last.

    turn: counts connections, so that each begins at the next address of a family.
    """
    families: dict[int, deque[Address]] = {}
    for address in addresses:
        families.setdefault(address.family, deque()).append(address)
    for members in families.values():
        members.rotate(-turn)
    alternating = [a for a in chain.from_iterable(zip_longest(*families.values())) if a is not None]
    return sorted(alternating, key=lambda address: address in avoided)


class Resolver:
    """Looks each name up at most once at a time, in a thread of its own.

    The threads of the event loop's pool are few, and a lookup may hang for half a minute. A daemon thread per
    name delays neither other names nor the end of the process, and there are no more threads than names.
    """

    def __init__(
        self,
        lookup: Callable[[str, int], tuple[Address, ...]] = system_lookup,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lookup = lookup
        self._clock = clock
        self._pending: dict[tuple[str, int], asyncio.Future[Answer]] = {}
        self._known: dict[tuple[str, int], tuple[Address, ...]] = {}
        """The last good answer for each name."""
        self._trusted: dict[tuple[str, int], float] = {}
        """Until when that answer is used without a lookup, because DNS has just failed."""

    async def addresses(self, host: str, port: int, seconds: float) -> tuple[Address, ...]:
        """The addresses of a name or of a literal address, asked for now.

        If DNS fails temporarily, or takes more than half of `seconds`, the last good answer is used.

        Raises: OSError (also TimeoutError, after `seconds`).
        """
        with suppress(OSError):
            return system_lookup(host, port, socket.AI_NUMERICHOST)
        name = host, port
        known = self._known.get(name)
        if known and self._trusted.get(name, 0.0) > self._clock():
            return known
        pending = self._pending.get(name) or self._start(name)
        try:
            async with asyncio.timeout(seconds / 2 if known else seconds):
                answer: Answer = await asyncio.shield(pending)
        except TimeoutError as error:
            answer = error
        if not isinstance(answer, OSError):
            return answer
        if known and _is_temporary(answer):
            self._trusted[name] = self._clock() + _TRUSTED
            return known
        raise answer

    def _start(self, name: tuple[str, int]) -> asyncio.Future[Answer]:
        loop = asyncio.get_running_loop()
        pending: asyncio.Future[Answer] = loop.create_future()
        self._pending[name] = pending

        def look_up() -> None:
            try:
                answer: Answer = self._lookup(*name)
            except OSError as error:
                answer = error
            except Exception as error:  # noqa: BLE001 - a request that waits must get an answer
                answer = OSError(repr(error))
            with suppress(RuntimeError):  # the event loop has ended meanwhile
                loop.call_soon_threadsafe(self._end, name, pending, answer)

        try:
            threading.Thread(target=look_up, name=f"dns {name[0]}", daemon=True).start()
        except RuntimeError as error:  # the system has no more threads
            self._end(name, pending, OSError(str(error)))
        return pending

    def _end(self, name: tuple[str, int], pending: asyncio.Future[Answer], answer: Answer) -> None:
        del self._pending[name]
        if not isinstance(answer, OSError):
            self._known[name] = answer
            self._trusted.pop(name, None)
        if not pending.done():
            pending.set_result(answer)


def _is_temporary(error: OSError) -> bool:
    """Whether DNS did not answer, as opposed to answering that there is no such name."""
    if isinstance(error, socket.gaierror):
        return error.errno in (socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_SYSTEM)
    return True
