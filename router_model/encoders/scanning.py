"""What the compiled kernel reads a prompt from: its bytes, and the tables of `ngrams`."""

from __future__ import annotations

from ctypes import byref
from functools import cache

import numpy as np

from router_model.arrays import Floats, Singles
from router_model.encoders import ngrams
from router_model.encoders.base import NgramCounts
from router_model.native.library import TextTables, kernel

_LARGEST = 1 << (ngrams.MAGNITUDES // 2)  # all numbers from here on are of the last class
_READ = ngrams.START + ngrams.END
_MOST_GRAMS = 3 * (_READ + 8)
"""More than a prompt has: a word, a pair and a group of characters at each character."""


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


def counted_grams(part: str, length: int) -> NgramCounts:
    """`ngrams.counts_of_part`, from the kernel where there is one. Only `dense` may differ a little."""
    functions = kernel()
    if functions is None:
        return ngrams.counts_of_part(part, length)
    text = part.encode("utf-8", "surrogatepass")
    dense = np.empty(ngrams.DENSE, np.float32)
    found = np.empty((2, _MOST_GRAMS), np.uint16)
    buckets, often = found
    to = (dense.ctypes.data, buckets.ctypes.data, often.ctypes.data)
    distinct = functions.grams(byref(kernel_tables()), text, len(text), length, *to)
    order = buckets[:distinct].argsort()
    return NgramCounts(buckets[order].astype(np.int32), often[order].astype(np.int64), dense)


def _smallest() -> Floats:
    """The smallest number of each size class, [MAGNITUDES]."""
    classes = ngrams.size_classes(np.log1p(np.arange(_LARGEST, dtype=np.float64)))
    smallest: Floats = classes.searchsorted(np.arange(ngrams.MAGNITUDES)).astype(np.float64)
    return smallest
