"""Reads many chunks of a response at once, in one call of the compiled kernel. No I/O."""

from __future__ import annotations

import ctypes
from functools import cache

from router_model.native.library import kernel

LONGEST = 1 << 18
"""Bytes that one call reads at most."""


def whole_chunks(data: bytes) -> tuple[bytes, int]:
    """What is in the plain, whole chunks at the beginning of `data`, and where they end.

    That is nothing, and 0, where the kernel was not built.
    """
    library, size = kernel(), len(data)
    if library is None or size > LONGEST:
        return b"", 0
    room, body, used = _shared_room()
    return body[: library.chunks(data, size, room, ctypes.addressof(used))].tobytes(), used.value


@cache
def _shared_room() -> tuple[int, memoryview, ctypes.c_int64]:
    """Room for the bodies of all responses, its address and its bytes, and for the end of the chunks."""
    room = ctypes.create_string_buffer(LONGEST)
    return ctypes.addressof(room), memoryview(room).cast("B"), ctypes.c_int64()
