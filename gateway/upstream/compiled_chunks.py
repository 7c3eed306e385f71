"""Reads many chunks of a response at once, in one call of the compiled kernel. No I/O."""

from __future__ import annotations

import ctypes

from gateway.openai_api.compiled_events import MOST, shared_room
from router_model.native.library import kernel

_used = ctypes.c_int64()
_address = ctypes.addressof(_used)


def whole_chunks(data: bytes) -> tuple[bytes, int]:
    """What is in the plain, whole chunks at the beginning of `data`, and where they end.

    That is nothing, and 0, where the kernel was not built.
    """
    library, size = kernel(), len(data)
    if library is None or size > MOST:
        return b"", 0
    room, body = shared_room()
    return body[: library.chunks(data, size, room, _address)].tobytes(), _used.value
