"""When two prompts count as the same, and numbers that depend on nothing but the prompt."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from router_model.arrays import Floats


def normalised(prompt: str) -> str:
    """What makes two prompts the same: compatibility forms, case and white space do not count."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


def places(prompts: Sequence[str], seed: int) -> Floats:
    """A place in [0, 1) for each prompt, from the seed and the normalised prompt alone.

    So a prompt falls into the same part whichever table it stands in.
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
    """53-bit hashes of the normalised prompts: enough to tell whether one was trained on, and no more."""
    return (places(prompts, -1) * 2**53).astype(np.uint64)
