"""Passes on the repetitions of a stream's events in one call of the compiled kernel. No I/O.

`RepeatedEvents` is `Template` in router_model/native/events.c.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char, c_char_p, c_int64
from functools import cache

from router_model.native.library import Kernel

MOST = 1 << 18
"""Bytes that one call reads at most."""

_FRAMING = 16
_COUNT = 192
_SIZES = "prefix_size middle_size tail_size rest_size closing_size inner strip watch used deltas count_size"


class RepeatedEvents(ctypes.Structure):
    """A template in C, and the sums over the events that repeated it."""

    _fields_ = (
        *((name, c_char_p) for name in ("prefix", "middle", "tail")),
        *((name, c_int64) for name in _SIZES.split()),
        ("count", c_char * _COUNT),
    )
    strip: int
    watch: int
    used: int
    deltas: int
    count_size: int

    def __init__(
        self,
        kernel: Kernel,
        fixed: tuple[bytes, bytes, bytes],
        kept: tuple[int, int],
        inner: int,
        *,
        strip: bool,
    ) -> None:
        """fixed: prefix, middle and tail of a template. kept: bytes of the middle in front of the count, and
        of the tail behind it. inner: objects in the count; -1 for events without one.

        strip: the count is removed.
        """
        super().__init__(*fixed, *map(len, fixed), *kept, inner, strip and inner >= 0)
        self._read, self._read_block = kernel.events, kernel.block
        self._address = ctypes.addressof(self)
        self._strips = bool(self.strip)
        self._out, self._room = shared_room()
        self.watched: bytes | None = None
        """The latest chunks that were taken while the answer is watched, see `watch_on`."""

    def pass_on(self, data: bytes) -> tuple[bytes, bytes]:
        """Read whole chunks of HTTP with whole events that repeat the template.

        Returns chunks that pass them on, and the rest of the data, from the first chunk that is not read.
        """
        size = len(data)
        passed = self._read(self._address, data, size, self._out) if size <= MOST else 0
        if not passed:
            return b"", data
        used, rest = data, b""
        if passed < 0:
            passed, used, rest = -passed, data[: self.used], data[self.used :]
        if self.watched is not None:
            self.watched = used
        return (self._room[:passed].tobytes() if self._strips else used), rest

    def read(self, block: bytes) -> tuple[int, bytes]:
        """Read the events at the beginning of a block that repeat the template, at most `MOST` bytes.

        Returns where they end, and what is forwarded of them.
        """
        passed = self._read_block(self._address, block, len(block), self._out)
        end = self.used
        return end, self._room[:passed].tobytes() if self._strips else block[:end]

    def watch_on(self, *, on: bool) -> None:
        """Leave texts that may hold the mark of a thought, and keep the chunks before them."""
        if on is (self.watched is None):
            self.watch, self.watched = on, b"" if on else None

    def taken(self) -> tuple[int, bytes]:
        """How many texts passed since the last call, and the latest running count, if any came."""
        deltas, size = self.deltas, self.count_size
        self.deltas = self.count_size = 0
        return deltas, ctypes.string_at(self._address + _COUNT_AT, size) if size else b""


_COUNT_AT = RepeatedEvents.count.offset


@cache
def shared_room() -> tuple[int, memoryview]:
    """Room for what one call writes, which all streams share: its address and its bytes."""
    room = ctypes.create_string_buffer(MOST + 2 * _FRAMING)
    return ctypes.addressof(room), memoryview(room).cast("B")
