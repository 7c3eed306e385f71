"""
Load mode of the fake backend. A response is planned once for all requests that differ only in their serial
number, so that the backend stays much faster than what is measured in front of it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import msgspec

from tests.fakes.fault import Fault
from tests.fakes.plan import STAMP_DIGITS, Action

SERIAL = b"Order number "
"""What comes before the serial number in the prompts of load tests."""
SERIAL_DIGITS = 10
CACHE_SIZE = 256
BURST = 8
"""Events that a stream writes at once."""
STAMP = re.compile(rb"@\d{%d};" % STAMP_DIGITS)


FIRST_BYTES = 65_536


def alike(body: bytes) -> bytes:
    """
    The body without its serial number: equal for requests that get equal responses.

    Of a large body only the beginning and the length count, since a backend would not read it on the core
    that the load generator uses.
    """
    if len(body) > FIRST_BYTES:
        return alike(body[:FIRST_BYTES]) + b"%d" % len(body)
    start = body.find(SERIAL)
    return body if start < 0 else body[:start] + body[start + len(SERIAL) + SERIAL_DIGITS :]


class Kept:
    """Responses of the current default fault, by path and body."""

    def __init__(self) -> None:
        self._responses: dict[tuple[str, bytes], Callable[[], Iterator[Action]]] = {}

    def clear(self) -> None:
        self._responses.clear()

    def find(self, path: str, body: bytes) -> Iterator[Action] | None:
        found = self._responses.get((path, alike(body)))
        return None if found is None else found()

    def keep(self, path: str, body: bytes, actions: Iterable[Action], pace_ms: float) -> Iterator[Action]:
        """Keep a response whose bytes are known in advance except for its time stamps."""
        if len(self._responses) >= CACHE_SIZE:
            self._responses.clear()
        writes = [action for action in actions if isinstance(action, bytes)]
        found = (
            partial(paced, list(map(STAMP.split, writes)), pace_ms / 1000)
            if pace_ms
            else partial(iter, bursts(writes))
        )
        self._responses[path, alike(body)] = found
        return found()


def steady(fault: Fault, *, sse: bool) -> Fault | None:
    """The fault without its pace if the response to it can be kept, otherwise None."""
    if fault.fixed:
        return fault
    plain = msgspec.structs.replace(fault, pace_ms=0)
    stamped = fault.stamp and sse and msgspec.structs.replace(plain, stamp=False).fixed
    return plain if stamped and fault.pace_ms else None


def bursts(writes: list[bytes]) -> list[Action]:
    """Some events at a time, with waits of zero between them, which let all streams advance together."""
    found: list[Action] = []
    for start in range(0, len(writes), BURST):
        found += [b"".join(writes[start : start + BURST]), 0.0]
    return found[:-1]


def paced(writes: list[list[bytes]], pace: float) -> Iterator[Action]:
    """Each write that is split at its time stamp is due `pace` seconds after the one before it."""
    due = time.monotonic()
    for write in writes:
        if len(write) == 1:
            yield write[0]
            continue
        due += pace
        yield max(0.0, due - time.monotonic())
        yield b"%b@%0*d;%b" % (write[0], STAMP_DIGITS, time.monotonic_ns(), write[1])
