"""Streams pass in C under uvloop too, which the gateway runs on. Its transports differ from asyncio's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest
import uvloop

from gateway.upstream.lane import Passage
from tests.http import test_diverted_ends as ends
from tests.http import test_diverted_streams as streams

Test = Callable[[list[Passage]], Coroutine[Any, Any, None]]
TESTS: dict[str, Test] = {
    "any packets": streams.test_any_packets,
    "a client that leaves": streams.test_client_that_leaves,
    "a client that does not read": streams.test_client_that_does_not_read,
    "a comment": streams.test_comment_in_a_silence,
    "the mark of a thought": streams.test_thought_that_is_watched_for,
    "many": streams.test_many_at_once,
    "the total time": ends.test_total_time,
    "half a chunk in a silence": partial(ends.test_half_a_chunk, end="silence"),
    "half a chunk at a shutdown": partial(ends.test_half_a_chunk, end="shutdown"),
    "half a chunk and no more": partial(ends.test_half_a_chunk, end="loss"),
    "a shutdown": ends.test_shutdown_waits,
    "a backend that dies": ends.test_backend_that_dies,
    "numbers of sockets": ends.test_numbers_of_sockets_that_come_again,
}


@pytest.mark.parametrize("name", TESTS)
def test_with_uvloop(passages: list[Passage], name: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(TESTS[name](passages))


@pytest.mark.parametrize("end", ["cut", "reset", "clean", "stall", "error"])
def test_ends_of_the_backend(passages: list[Passage], monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """A stream that breaks off ends with the same error as without C."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(streams.test_ends_of_the_backend(passages, monkeypatch, end))
