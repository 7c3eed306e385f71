"""What a stream has spent so far, and how fast."""

from __future__ import annotations

import time

from gateway.openai_api.stream import StreamReader
from gateway.routing.blind import Blind

_SHORT = 0.5  # seconds; over a shorter time, the rate of a stream cannot be told


def stream_progress(blind: Blind, reader: StreamReader, first: float, latest: float) -> int:
    """Tokens that a stream has spent, whose first and latest block came at these times; -1 if unknown."""
    silence = time.perf_counter() - latest
    if blind.silent or reader.silent(silence):
        return -1
    return reader.passed(blind.reasoning) + blind.unseen(silence, stream_rate(reader, latest - first))


def stream_rate(reader: StreamReader, seconds: float) -> float:
    """Tokens of a stream that passed in a second."""
    return reader.passed() / max(seconds, _SHORT)
