"""Base class of encoders that embed prompts, with a cache of their vectors.

An embedding is a unit vector that takes the place of the n-grams. The plain counts of `ngrams` stay beside
it, and everything that is learnt above works the same for all encoders.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from router_model.arrays import Singles
from router_model.encoders.base import EncoderError, Features, Matrix
from router_model.encoders.ngrams import ngram_matrix, part_read
from router_model.encoders.scanning import ngram_counts

PROBE = "How many minutes are there in a day and a half?"
"""Embedded when a head is trained and when it is served. Both vectors must agree."""

REMEMBERED = 1 << 17
"""Vectors cached by default; a gateway asks for fewer."""

_BATCH = 32


class Embedder(ABC):
    """Dense unit vectors in a cache. Code that may wait fills the cache; `features` only reads it."""

    def __init__(self, identity: Mapping[str, Any], width: int, remembers: int) -> None:
        self.identity = {**identity, "width": width}
        self.width = width
        self._columns = np.arange(width, dtype=np.int32)
        self._remembers = remembers
        self._known: dict[bytes, Singles] = {}

    @abstractmethod
    def embed(self, texts: Sequence[str]) -> Singles:
        """Vectors of some texts, [N, width].

        Raises: EncoderError.
        """

    def missing(self, prompts: Sequence[str]) -> list[str]:
        """The texts that must be embedded before `features` knows all of these prompts."""
        return [text for text in dict.fromkeys(map(part_read, prompts)) if _key(text) not in self._known]

    def keep(self, texts: Sequence[str], vectors: Singles) -> None:
        """Cache vectors [N, width] of any length.

        Raises: EncoderError.
        """
        if vectors.shape != (len(texts), self.width):
            raise EncoderError(
                f"expected {len(texts)} embeddings of {self.width} numbers, got {vectors.shape}; the head was"
                " trained with another encoder"
            )
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(length) & (length > 0)).all():
            raise EncoderError("an embedding is not a vector of finite numbers")
        self._known.update(zip(map(_key, texts), (vectors / length).astype(np.float32), strict=True))
        while len(self._known) > max(self._remembers, len(texts)):
            del self._known[next(iter(self._known))]

    def features(self, prompt: str) -> Features | None:
        """See `Encoder.features`."""
        vector = self._known.get(_key(part_read(prompt)))
        return None if vector is None else Features(self._columns, vector, ngram_counts(prompt))

    def encode_all(self, prompts: Sequence[str]) -> Matrix:
        """See `Encoder.encode_all`."""
        parts = [prompts[start : start + 2048] for start in range(0, len(prompts), 2048)] or [[]]
        rows = [self._rows(part) for part in parts]
        count = len(prompts)
        return Matrix(
            np.arange(count + 1, dtype=np.int64) * self.width,
            np.tile(self._columns, count),
            np.concatenate([values for values, _ in rows]).ravel(),
            np.concatenate([dense for _, dense in rows]),
        )

    def _rows(self, prompts: Sequence[str]) -> tuple[Singles, Singles]:
        texts = sorted(self.missing(prompts), key=len)  # a batch is padded to its longest text
        keys = [_key(part_read(prompt)) for prompt in prompts]
        vectors = {key: self._known[key] for key in keys if key in self._known}
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            self.keep(batch, self.embed(batch))
            vectors |= {key: self._known[key] for key in map(_key, batch)}
        values = np.array([vectors[key] for key in keys], np.float32)
        return values.reshape(len(prompts), self.width), ngram_matrix(prompts).dense


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
