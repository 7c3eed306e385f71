"""What the compiled kernel reads a prompt from: its bytes, and the tables of `ngrams`."""

from __future__ import annotations

from ctypes import byref, create_string_buffer
from functools import cache

import numpy as np

from router_model.arrays import Floats, Singles
from router_model.encoders import ngrams
from router_model.native.library import TextTables, kernel

_LARGEST = 1 << (ngrams.MAGNITUDES // 2)  # all numbers from here on are of the last class
_READ = ngrams.START + ngrams.END
_MOST_PACKED = 16_384
"""More bytes than the counts of a prompt take."""


@cache
def kernel_tables() -> TextTables:
    """The tables of `ngrams` for the kernel, made once per process."""
    tables = ngrams.text_tables()
    return TextTables(
        kind=tables.kind,
        hashed=tables.hashed,
        token=ngrams.TOKEN,
        magnitudes=tables.magnitudes,
        classes=_smallest(),
        cues=tables.cues,
        powers=tables.powers,
        inverses=tables.inverses,
        logs=np.log1p(np.arange(len(tables.powers), dtype=np.float64)),
        weights=ngrams.WEIGHTS,
    )


def kernel_text(prompt: str) -> bytes:
    """The part of a prompt that is read, in UTF-8."""
    text = prompt if len(prompt) <= _READ else ngrams.part_read(prompt)
    return text.encode("utf-8", "surrogatepass")


def ngram_counts(prompt: str) -> Singles:
    """`ngram_features(prompt).dense`, from the kernel where there is one."""
    functions = kernel()
    if functions is None:
        return ngrams.ngram_features(prompt).dense
    text, dense = kernel_text(prompt), np.empty(ngrams.DENSE, np.float32)
    functions.counts(byref(kernel_tables()), text, len(text), len(prompt), dense.ctypes.data)
    return dense


def kernel_packed(part: str, length: int) -> bytes | None:
    """`packing.packed_part`, where there is a kernel. Only logarithms may differ a little."""
    functions = kernel()
    if functions is None:
        return None
    text, packed = part.encode("utf-8", "surrogatepass"), create_string_buffer(_MOST_PACKED)
    size: int = functions.packed(byref(kernel_tables()), text, len(text), length, packed)
    return packed.raw[:size]


def _smallest() -> Floats:
    """The smallest number of each size class, [MAGNITUDES]."""
    classes = ngrams.size_classes(np.log1p(np.arange(_LARGEST, dtype=np.float64)))
    smallest: Floats = classes.searchsorted(np.arange(ngrams.MAGNITUDES)).astype(np.float64)
    return smallest
