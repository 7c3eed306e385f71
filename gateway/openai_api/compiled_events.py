"""Passes on the repetitions of a stream's events in one call of the compiled kernel. No I/O.

`RepeatedEvents` is `Template` in router_model/native/events.h.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char, c_char_p, c_int64
from functools import cache

from router_model.native.library import Kernel

MOST = 1 << 18
"""Bytes that one call reads at most."""

_FRAMING = 16
_COUNT, _TEXT = 192, 64
_SIZES = "prefix_size middle_size tail_size rest_size closing_size inner strip watch used deltas".split()
_KEPT = ("count_size", "text_size")


class RepeatedEvents(ctypes.Structure):
    """A template in C, and the sums over the events that repeated it."""

    _fields_ = (
        *((name, c_char_p) for name in ("prefix", "middle", "tail")),
        *((name, c_int64) for name in (*_SIZES, *_KEPT)),
        ("count", c_char * _COUNT),
        ("text", c_char * _TEXT),
    )
    strip: int
    watch: int
    """Leave texts that may hold the mark of a thought, and keep the end of the latest one."""
    used: int
    deltas: int
    count_size: int
    text_size: int

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
        self._read, self._read_block, self._begins = kernel.events, kernel.block, kernel.begins
        self.address = ctypes.addressof(self)
        self._strips = bool(self.strip)
        self._out, self._room = shared_room()

    def pass_on(self, data: bytes) -> tuple[bytes, bytes]:
        """Read whole chunks of HTTP with whole events that repeat the template.

        Returns chunks that pass them on, and the rest of the data, from the first chunk that is not read.
        """
        size = len(data)
        passed = self._read(self.address, data, size, self._out) if size <= MOST else 0
        if not passed:
            return b"", data
        used, rest = data, b""
        if passed < 0:
            passed, used, rest = -passed, data[: self.used], data[self.used :]
        return (self._room[:passed].tobytes() if self._strips else used), rest

    def begins(self, data: bytes) -> bool:
        """Whether data that `pass_on` has left may be the beginning of a chunk whose rest is to come."""
        return bool(self._begins(data, len(data)))

    def read(self, block: bytes) -> tuple[int, bytes]:
        """Read the events at the beginning of a block that repeat the template, at most `MOST` bytes.

        Returns where they end, and what is forwarded of them.
        """
        passed = self._read_block(self.address, block, len(block), self._out)
        end = self.used
        return end, self._room[:passed].tobytes() if self._strips else block[:end]

    def taken(self) -> tuple[int, bytes, bytes]:
        """How many texts passed since the last call, and the latest running count, if any came.

        With `watch` also the end of the latest text.
        """
        deltas, count, text = self.deltas, self.count_size, self.text_size
        self.deltas = self.count_size = self.text_size = 0
        return (
            deltas,
            ctypes.string_at(self.address + _COUNT_AT, count) if count else b"",
            ctypes.string_at(self.address + _TEXT_AT, text) if text else b"",
        )


_COUNT_AT, _TEXT_AT = RepeatedEvents.count.offset, RepeatedEvents.text.offset


@cache
def shared_room() -> tuple[int, memoryview]:
    """Room for what one call writes, which all streams share: its address and its bytes."""
    room = ctypes.create_string_buffer(MOST + 2 * _FRAMING)
    return ctypes.addressof(room), memoryview(room).cast("B")
