"""What a head reads from a prompt, in a few hundred bytes. One can be trained without the text. No I/O.

It is the counts of the default encoder (`router_model.encoders.ngrams`): buckets of hashed words, word pairs
and character 4-grams, and some sixty plain counts. They do not depend on any head.

The text is not in it, but whoever has a guess can check it: the same prompt gives the same bytes. From a list
of common words one can tell which of them a prompt probably has. So it is personal data if the prompt is.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from router_model.encoders import ngrams
from router_model.encoders.base import Features, NgramCounts
from router_model.encoders.ngrams import DENSE
from router_model.encoders.scanning import counted_grams

_HEADER = struct.Struct("<BBHH")
_LAYOUT = 1
"""Rises when the bytes are laid out in another way."""


class UnknownFeatures(ValueError):  # noqa: N818 - named after what was found
    """The bytes are damaged, or another version of Thinkmeter made them."""


def encode_features(part: str, length: int) -> bytes:
    """The features of a prompt of `length` characters, of which `part_read` gave this part."""
    indices, counts, dense = counted_grams(part, length)
    repeated = (counts > 1).nonzero()[0]
    gaps = indices.astype("<u2")
    gaps[1:] -= gaps[:-1].copy()
    body = b"".join(
        (
            dense.astype("<f4").tobytes(),
            gaps.tobytes(),
            repeated.astype("<u2").tobytes(),
            counts[repeated].astype("<u2").tobytes(),
        )
    )
    return _HEADER.pack(_LAYOUT, ngrams.FEATURE_VERSION, len(indices), len(repeated)) + zlib.compress(body, 1)


def decode_features(data: bytes) -> Features:
    """What the default encoder gives for the prompt. Raises: UnknownFeatures."""
    try:
        layout, version, distinct, repeats = _HEADER.unpack_from(data)
        if (layout, version) != (_LAYOUT, ngrams.FEATURE_VERSION):
            raise UnknownFeatures(f"features of version {layout}.{version}")
        body = zlib.decompress(data[_HEADER.size :])
        dense = np.frombuffer(body, "<f4", DENSE)
        numbers = np.frombuffer(body, "<u2", distinct + 2 * repeats, 4 * DENSE)
    except (struct.error, zlib.error, ValueError) as error:
        raise UnknownFeatures(str(error)) from None
    counts = np.ones(distinct, np.int64)
    counts[numbers[distinct : distinct + repeats]] = numbers[distinct + repeats :]
    indices = np.cumsum(numbers[:distinct], dtype=np.int32)
    return ngrams.weighted(NgramCounts(indices, counts, dense.astype(np.float32)))
