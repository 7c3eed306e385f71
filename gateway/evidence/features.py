"""What a head reads from a prompt, in about a kilobyte. One can be trained without the text. No I/O.

It is the counts of the default encoder (`router_model.encoders.ngrams`): buckets of hashed words, word pairs
and character 4-grams, and some sixty plain counts. They do not depend on any head.

The text is not in it, but whoever has a guess can check it: the same prompt gives the same bytes. From a list
of common words one can tell which of them a prompt probably has. So it is personal data if the prompt is.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_model.encoders import ngrams
from router_model.encoders.base import Features, NgramCounts
from router_model.encoders.ngrams import DENSE
from router_model.encoders.scanning import counted_grams

_HEADER = struct.Struct("<BBH")
_LAYOUT = 1
"""Rises when the bytes are laid out in another way."""
_LARGE = 255
"""A number that takes more than a byte."""


class UnknownFeatures(ValueError):  # noqa: N818 - named after what was found
    """The bytes are damaged, or another version of Thinkmeter made them."""


def encode_features(part: str, length: int) -> bytes:
    """The features of a prompt of `length` characters, of which `part_read` gave this part.

    The counts that are not 0, then the distances between the buckets, most of which fit into a byte, then how
    often each n-gram occurs, if more than once.
    """
    indices, counts, dense = counted_grams(part, length)
    gaps = indices.astype(np.uint16)
    gaps[1:] -= gaps[:-1].copy()
    present, repeated = dense != 0, counts > 1
    return b"".join(
        (
            _HEADER.pack(_LAYOUT, ngrams.FEATURE_VERSION, len(indices)),
            np.packbits(present).tobytes(),
            dense[present].astype("<f4").tobytes(),
            np.packbits(repeated).tobytes(),
            *_packed(gaps),
            *_packed(counts[repeated]),
        )
    )


def decode_features(data: bytes) -> Features:
    """What the default encoder gives for the prompt. Raises: UnknownFeatures."""
    try:
        layout, version, distinct = _HEADER.unpack_from(data)
        if (layout, version) != (_LAYOUT, ngrams.FEATURE_VERSION):
            raise UnknownFeatures(f"features of version {layout}.{version}")
        rest = _Rest(data[_HEADER.size :])
        present = rest.flags(DENSE)
        dense = np.zeros(DENSE, np.float32)
        dense[present] = rest.take("<f4", int(present.sum()))
        repeated = rest.flags(distinct)
        indices = np.cumsum(rest.packed(distinct), dtype=np.int32)
        counts = np.ones(distinct, np.int64)
        counts[repeated] = rest.packed(int(repeated.sum()))
    except (struct.error, ValueError) as error:
        raise UnknownFeatures(str(error)) from None
    if rest.data:
        raise UnknownFeatures("there is more than the features")
    return ngrams.weighted(NgramCounts(indices, counts, dense))


def _packed(numbers: NDArray[np.uint16] | NDArray[np.int64]) -> tuple[bytes, bytes]:
    """Numbers in a byte each, and those that are larger."""
    large = numbers[numbers >= _LARGE]
    return np.minimum(numbers, _LARGE).astype(np.uint8).tobytes(), large.astype("<u2").tobytes()


class _Rest:
    """Reads what `encode_features` wrote. Raises ValueError where it ends too early."""

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

    def packed(self, count: int) -> NDArray[np.int64]:
        numbers = self.take("u1", count).astype(np.int64)
        large = numbers == _LARGE
        numbers[large] = self.take("<u2", int(large.sum()))
        return numbers
