"""The protocol of encoders, which turn prompts into features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class EncoderError(ValueError):
    """The encoder cannot be used, differs from the one the head was trained with, or does not respond."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where an encoder is found."""

    place: str = "hashed"
    """`hashed`, a directory, or the address of an OpenAI-compatible server."""
    model: str | None = None
    """The model of a server."""
    pooling: str = "mean"
    """`mean` or `cls`, for a directory."""
    key: str | None = None
    """The API key of a server."""
    timeout: float = 60.0
    """Seconds to wait for a server."""

    @property
    def served(self) -> bool:
        """Whether the place is an address."""
        return self.place.startswith(("http://", "https://"))


class Features(NamedTuple):
    """The features of one prompt."""

    indices: NDArray[np.int32]
    """Ascending columns, [n]: buckets of n-grams, or all columns of an embedding."""
    values: NDArray[np.float32]
    """[n]. For n-grams 1 + ln(count), of unit length within each of the two blocks."""
    dense: NDArray[np.float32]
    """`ngrams.COUNTS`, mostly ln(1 + count), [DENSE]."""


class NgramCounts(NamedTuple):
    """What the features of the default encoder follow from."""

    indices: NDArray[np.int32]
    """Buckets of n-grams, rising."""
    counts: NDArray[np.int64]
    """How often each occurs."""
    dense: NDArray[np.float32]


class Matrix(NamedTuple):
    """The features of N prompts: compressed sparse rows of an [N, width] matrix, and counts [N, DENSE]."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    dense: NDArray[np.float32]


def stacked(rows: Sequence[Features], dense: int) -> Matrix:
    """The features of many prompts, one row each. dense: how many counts each has."""
    indptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row.indices) for row in rows], out=indptr[1:])
    none = Features(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros((0, dense), np.float32))
    return Matrix(
        indptr,
        np.concatenate([none.indices, *(row.indices for row in rows)]),
        np.concatenate([none.values, *(row.values for row in rows)]),
        np.vstack([none.dense, *(row.dense for row in rows)]),
    )


class Encoder(Protocol):
    """Turns text into features. A head's manifest keeps `identity`, and the encoder must match it exactly."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """The kind of encoder, and what distinguishes it from others of its kind."""
        ...

    @property
    def width(self) -> int:
        """Number of columns that `Features.indices` may name."""
        ...

    def features(self, prompt: str) -> Features | None:
        """The features of one prompt, without waiting; None if they are not at hand."""
        ...

    def encode_all(self, prompts: Sequence[str]) -> Matrix:
        """The features of all prompts, however long it takes.

        Raises: EncoderError.
        """
        ...
