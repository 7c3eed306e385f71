"""What turns prompts into features: one protocol for hashed n-grams, a sentence encoder and a remote one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class EncoderError(ValueError):
    """An encoder that cannot be used, is another than the head was trained with, or does not answer."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where an encoder is found: `hashed`, a directory, or the address of an OpenAI-compatible server.

    model, key, timeout (seconds): of a server. pooling: `mean` or `cls`, of a directory.
    """

    place: str = "hashed"
    model: str | None = None
    pooling: str = "mean"
    key: str | None = None
    timeout: float = 60.0

    @property
    def served(self) -> bool:
        """Whether it is an address."""
        return self.place.startswith(("http://", "https://"))


class Features(NamedTuple):
    """One prompt. indices: ascending buckets, int32 [n]. values: 1 + ln(count), unit length within each of
    the two blocks, float32 [n]. dense: `COUNTS`, mostly ln(1 + count), float32 [DENSE]."""

    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    dense: NDArray[np.float32]


class Matrix(NamedTuple):
    """N prompts: the compressed sparse rows of an [N, SIZE] matrix, and the dense features [N, DENSE]."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    dense: NDArray[np.float32]


class Encoder(Protocol):
    """Text to features. `identity` is what a head's manifest keeps: it must be met again exactly."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Kind, and what tells this encoder from others of its kind."""
        ...

    @property
    def width(self) -> int:
        """Columns that `Features.indices` may name."""
        ...

    def features(self, prompt: str) -> Features | None:
        """Of one prompt, at once; None where that would mean to wait."""
        ...

    def encode_all(self, prompts: Sequence[str]) -> Matrix:
        """Of all prompts, however long it takes. Raises EncoderError."""
        ...
