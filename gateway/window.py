"""A window of a budget, and how windows are named to the scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

BUCKETS = 60
"""Buckets in a window: a token counts for the window's length, and for at most a 60th of it longer."""


class Window(NamedTuple):
    """One window of one holder: its keys in Redis, its cap in tokens and its buckets in milliseconds."""

    key: str
    leases: str
    tokens: int
    bucket_ms: int


def window(prefix: str, budget: str, seconds: float, holder: str, tokens: int) -> Window:
    """The window of one holder, whose length is part of its name."""
    bucket_ms = max(-(-round(seconds * 1000) // BUCKETS), 1)
    name = f"{prefix}:{budget}:{seconds:.15g}:{holder}"
    return Window(name, f"{name}:leases", tokens, bucket_ms)


class Table:
    """The keys of one script call, each window once."""

    def __init__(self, first: str, windows: Sequence[Window] = ()) -> None:
        self.keys = [first]
        self.caps: list[int] = []
        self._buckets: list[int] = []
        self._known: dict[str, int] = {}
        for window in windows:
            self.index(window)

    def index(self, window: Window) -> int:
        """The window's position, from 1, as Lua counts."""
        key, leases, tokens, bucket_ms = window
        position = self._known.get(key)
        if position is None:
            position = self._known[key] = len(self._known) + 1
            self.keys += (key, leases)
            self.caps.append(tokens)
            self._buckets += (bucket_ms, BUCKETS)
        return position

    def lengths(self) -> list[int]:
        """How many windows, then bucket length and count of each."""
        return [len(self._known), *self._buckets]
