"""What a head reads from a prompt, in about a kilobyte. One can be trained without the text. No I/O.

It is the counts of the default encoder (`router_model.encoders.ngrams`): buckets of hashed words, word pairs
and character 4-grams, and some sixty plain counts. They do not depend on any head.

The text is not in it, but whoever has a guess can check it: the same prompt gives the same bytes. From a list
of common words one can tell which of them a prompt probably has. So it is personal data if the prompt is.
"""

from __future__ import annotations

from router_model.encoders import ngrams
from router_model.encoders.base import Features
from router_model.encoders.packing import packed_part, unpack_counts

_LAYOUT = 1
"""Rises when the bytes are laid out in another way."""
_VERSIONS = bytes((_LAYOUT, ngrams.FEATURE_VERSION))
"""The first two bytes."""


class UnknownFeatures(ValueError):  # noqa: N818 - named after what was found
    """The bytes are damaged, or another version of Thinkmeter made them."""


def encode_features(part: str, length: int) -> bytes:
    """The features of a prompt of `length` characters, of which `part_read` gave this part."""
    return _VERSIONS + packed_part(part, length)


def decode_features(data: bytes) -> Features:
    """What the default encoder gives for the prompt. Raises: UnknownFeatures."""
    if data[:2] != _VERSIONS:
        raise UnknownFeatures(f"features of version {'.'.join(map(str, data[:2]))}")
    try:
        return ngrams.weighted(unpack_counts(data[2:]))
    except ValueError as error:
        raise UnknownFeatures(str(error)) from None
