"""When two prompts count as the same, and hashes that depend only on the prompt."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from router_model.arrays import Floats


def normalised(prompt: str) -> str:
    """The prompt without differences in compatibility forms, case and white space."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


def places(prompts: Sequence[str], seed: int) -> Floats:
    """A number in [0, 1) for each prompt, from the seed and the normalised prompt alone.

    A prompt therefore falls into the same part of a split in every table.
    """
    salt = seed.to_bytes(8, "big", signed=True)
    digests = (
        hashlib.blake2b(normalised(prompt).encode("utf-8", "surrogatepass"), digest_size=8, key=salt).digest()
        for prompt in prompts
    )
    whole = np.fromiter((int.from_bytes(digest, "big") >> 11 for digest in digests), np.float64)
    place: Floats = whole / 2**53
    return place


def fingerprints(prompts: Sequence[str]) -> NDArray[np.uint64]:
    """53-bit hashes of the normalised prompts: they tell whether a prompt was trained on, no more."""
    return (places(prompts, -1) * 2**53).astype(np.uint64)
