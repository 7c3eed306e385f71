"""Load mode of the fake backend: requests that differ in a number get one response, at its pace."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.fakes.fault import Fault
from tests.fakes.light import FIRST_BYTES, SERIAL, STAMP, Kept, alike, bursts, paced, steady
from tests.fakes.plan import Action

BODY = b'{"prompt":"%b0000000042: how are you?","max_tokens":8}' % SERIAL
PACED = Fault(tokens=2, pace_ms=20, stamp=True)


def test_bodies_are_alike_but_for_the_number() -> None:
    assert alike(BODY) == alike(BODY.replace(b"42", b"43"))
    assert alike(BODY) != alike(BODY.replace(b"8}", b"9}"))
    assert alike(b"{}") == b"{}"


def test_large_bodies_are_alike_by_beginning_and_length() -> None:
    large = BODY + b"a" * FIRST_BYTES

    assert alike(large) == alike(large.replace(b"42", b"43")[:-1] + b"b")
    assert alike(large) != alike(large + b"a")
    assert alike(large) != alike(large.replace(b"how", b"who"))


@pytest.mark.parametrize(
    ("fault", "sse", "expected"),
    [
        (Fault(tokens=3), False, Fault(tokens=3)),
        (PACED, True, Fault(tokens=2, stamp=True)),
        (PACED, False, None),
        (Fault(pace_ms=20), True, None),
        (Fault(stamp=True), True, None),
        (Fault(pace_ms=20, stamp=True, after=1), True, None),
        (Fault(status=500), False, None),
    ],
)
def test_which_responses_are_kept(fault: Fault, sse: bool, expected: Fault | None) -> None:
    assert steady(fault, sse=sse) == expected


def test_streams_take_turns() -> None:
    """A wait of zero follows every eight events, but not the last."""
    writes = [b"%d," % number for number in range(17)]

    assert bursts(writes) == [b"0,1,2,3,4,5,6,7,", 0.0, b"8,9,10,11,12,13,14,15,", 0.0, b"16,"]


def test_a_stamp_is_the_time_of_its_write() -> None:
    """Only what has a stamp waits, and a write keeps its length."""
    write = b"15\r\n@%020d;\r\n" % 7
    head, wait, first, tail = paced([[b"head"], STAMP.split(write), [b"tail"]], pace=0.0)

    assert (head, tail) == (b"head", b"tail")
    assert wait == 0
    assert isinstance(first, bytes)
    assert len(first) == len(write)
    assert re.fullmatch(rb"15\r\n@0*[1-9]\d+;\r\n", first)


def test_a_response_is_planned_once() -> None:
    kept, planned = Kept(), 0

    def plan() -> Iterator[Action]:
        nonlocal planned
        planned += 1
        yield b"response"

    assert kept.find("/a", BODY) is None
    assert list(kept.keep("/a", BODY, plan(), 0)) == [b"response"]
    for _ in range(2):
        assert list(kept.find("/a", BODY.replace(b"42", b"77")) or ()) == [b"response"]
    assert kept.find("/b", BODY) is None
    kept.clear()
    assert kept.find("/a", BODY) is None
    assert planned == 1
