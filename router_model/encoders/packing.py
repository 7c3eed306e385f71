"""What the default encoder counts in a prompt, in about a kilobyte, without the text. No I/O.

In this order:

- the number of distinct n-grams, in 2 bytes;
- which of the plain counts are not 0, a bit each, and those, as 4-byte floats;
- which n-grams occur more than once, a bit each;
- the distances between their buckets;
- how often those occur that occur more than once.

A distance or an occurrence takes a byte. Those of 255 and more have 255 there, and follow in 2 bytes each.
Numbers are little-endian, and the first bit is the highest of its byte.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_model.encoders.base import NgramCounts
from router_model.encoders.ngrams import DENSE, counts_of_part
from router_model.encoders.scanning import kernel_packed

_DISTINCT = struct.Struct("<H")
_LARGE = 255
"""A number that takes more than a byte."""


def packed_part(part: str, length: int) -> bytes:
    """The counts of a prompt of `length` characters, of which `ngrams.part_read` gave this part."""
    packed = kernel_packed(part, length)
    return pack_counts(counts_of_part(part, length)) if packed is None else packed


def pack_counts(counted: NgramCounts) -> bytes:
    """The counts as bytes. The kernel does the same."""
    indices, counts, dense = counted
    gaps = indices.astype(np.uint16)
    gaps[1:] -= gaps[:-1].copy()
    present, repeated = dense != 0, counts > 1
    return b"".join(
        (
            _DISTINCT.pack(len(indices)),
            np.packbits(present).tobytes(),
            dense[present].astype("<f4").tobytes(),
            np.packbits(repeated).tobytes(),
            *_short(gaps),
            *_short(counts[repeated]),
        )
    )


def unpack_counts(data: bytes) -> NgramCounts:
    """The counts that were packed. Raises: ValueError if the bytes are damaged."""
    if len(data) < _DISTINCT.size:
        raise ValueError("the features end too early")
    distinct = int(_DISTINCT.unpack_from(data)[0])
    rest = _Rest(data[_DISTINCT.size :])
    present = rest.flags(DENSE)
    dense = np.zeros(DENSE, np.float32)
    dense[present] = rest.take("<f4", int(present.sum()))
    repeated = rest.flags(distinct)
    indices = np.cumsum(rest.numbers(distinct), dtype=np.int32)
    counts = np.ones(distinct, np.int64)
    counts[repeated] = rest.numbers(int(repeated.sum()))
    if rest.data:
        raise ValueError("there is more than the features")
    return NgramCounts(indices, counts, dense)


def _short(numbers: NDArray[np.uint16] | NDArray[np.int64]) -> tuple[bytes, bytes]:
    """Numbers in a byte each, and those that are larger."""
    large = numbers[numbers >= _LARGE]
    return np.minimum(numbers, _LARGE).astype(np.uint8).tobytes(), large.astype("<u2").tobytes()


class _Rest:
    """Reads what `pack_counts` wrote. Raises ValueError where it ends too early."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        """What is still to be read."""

    def take(self, kind: str, count: int) -> NDArray[Any]:
        size = count * np.dtype(kind).itemsize
        if size > len(self.data):
            raise ValueError("the features end too early")
        found = np.frombuffer(self.data, kind, count)
        self.data = self.data[size:]
        return found

    def flags(self, count: int) -> NDArray[np.bool_]:
        return np.unpackbits(self.take("u1", -(-count // 8)), count=count).astype(np.bool_)

    def numbers(self, count: int) -> NDArray[np.int64]:
        found = self.take("u1", count).astype(np.int64)
        large = found == _LARGE
        found[large] = self.take("<u2", int(large.sum()))
        return found
