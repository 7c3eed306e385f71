"""The default encoder: hashed words and character n-grams, and plain counts. NumPy only, in bounded time.

An n-gram's hash is a polynomial of its characters modulo 2^64. The hashes of all words, word pairs and
character 4-grams therefore take a few operations on the array of code points.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from router_model.encoders.base import Features, Matrix, NgramCounts, stacked

FEATURE_VERSION = 2
"""Rises with every change of what `ngram_features` returns. A head refuses features of another version."""

BLOCK = 1 << 15  # buckets for words and word pairs, and as many again for character n-grams
SIZE = 2 * BLOCK
START, END = 3072, 1024  # characters read at the two ends of a prompt, which bounds the time

_SPACE, _LINE, _LOWER, _UPPER, _DIGIT, _LETTER, _IDEOGRAPH = range(7)
_NAMED = "+ -−– *×· /÷ = <>≤≥≠ ^ % $ \\ ( [ { _ . , ? ! : ; \"'`’“” |&#@~".split()
_OTHER = _IDEOGRAPH + 1 + len(_NAMED)
_KINDS = _OTHER + 1
MAGNITUDES = 28  # classes of a number's size, half an octave each; the last one is open

_CUES = (
    "what which who when where why how",
    "prove show derive explain justify explique erkläre why because",
    "compute calculate evaluate solve find determine simplify",
    "if then suppose given let assume otherwise unless",
    "each every per total sum altogether all average mean rate",
    "twice half double triple third quarter times percent many much",
    "more less than fewer greater larger smaller largest smallest maximum minimum most least",
    "mod modulo remainder divided division prime factor divisor",
    "integer integers polynomial function equation triangle matrix probability angle circle sequence",
    "def return import class print code python function error sql list string",
    "hello hi thanks please translate summarise summarize rewrite write",
    "answer choose option following true false correct select",
)

COUNTS = (
    "characters", "words", "distinct", "word_length", "numbers", "largest", "second", "third", "mean_size",
    "last_number", *(f"kind_{at}" for at in range(_KINDS)), *(f"size_{at}" for at in range(MAGNITUDES // 2)),
    *(f"cue_{at}" for at in range(len(_CUES))),
)  # fmt: skip
"""Names of the dense features, in order."""
DENSE = len(COUNTS)
_MOST = 4.0  # standard deviations beyond which a count carries no more information


class Tables(NamedTuple):
    """Lookups by code point (the first 65,536; the rest share the last), position, size and bucket."""

    kind: NDArray[np.uint8]
    hashed: NDArray[np.uint64]
    powers: NDArray[np.uint64]
    inverses: NDArray[np.uint64]
    magnitudes: NDArray[np.uint64]
    cues: NDArray[np.uint8]


class _Tokens(NamedTuple):
    """Buckets of words and of word pairs; ln(1 + value) and size class of the numbers among the words."""

    words: NDArray[np.uint64]
    pairs: NDArray[np.uint64]
    sizes: NDArray[np.float64]
    magnitudes: NDArray[np.int64]


_MULTIPLIER = 0x9E3779B97F4A7C15
_RADIX, _SQUARE = np.uint64(_MULTIPLIER), np.uint64(_MULTIPLIER**2 % (1 << 64))
_PAIRING = np.uint64(0xD6E8FEB86659FD93)
_EDGE = np.uint64(0xA0761D6478BD642F)  # stands for the characters around a word in its n-grams
_SHIFT = np.uint64(64 - 15)
_WORD, _NUMBER, _SINGLE = 1, 2, 3
TOKEN = np.array([0, 0, _WORD, _WORD, _NUMBER, _WORD, *[_SINGLE] * (_KINDS - _IDEOGRAPH)], np.uint8)
_TENS = 10.0 ** np.arange(300)
_PLACES = np.arange(1, START + END + 8)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014): every input bit affects every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _kind(char: str) -> int:
    if char in "\n\r":
        return _LINE
    for at, chars in enumerate(_NAMED):
        if char in chars:
            return _IDEOGRAPH + 1 + at
    category = unicodedata.category(char)
    if "⺀" <= char <= "鿿" or "豈" <= char <= "﫿":
        return _IDEOGRAPH
    if category == "Ll":
        return _LOWER if char.isascii() else _LETTER
    by_category = {"Nd": _DIGIT, "Lu": _UPPER, "Zl": _LINE, "Zp": _LINE}
    by_category |= dict.fromkeys(("Zs", "Cc", "Cf"), _SPACE)
    return by_category.get(category, _LETTER if category[0] in "LM" else _OTHER)


def standardised(counts: NDArray[Any], mean: NDArray[Any], scale: NDArray[Any]) -> NDArray[Any]:
    """Counts [..., DENSE] in standard deviations from their mean, cut off where they say no more.

    All float32 when serving, float64 in training.
    """
    cut: NDArray[Any] = np.minimum(np.maximum((counts - mean) / scale, -_MOST), _MOST)  # np.clip is slower
    return cut


@cache
def text_tables() -> Tables:
    """Built once per process, in a fraction of a second."""
    chars = [chr(code) for code in range(0x10000)]
    kind = np.array([_kind(char) for char in chars], np.uint8)
    lower = np.array([ord(low) if len(low := char.lower()) == 1 else ord(char) for char in chars], np.uint64)
    hashed = _mix(lower + np.uint64(1))
    hashed[kind == _DIGIT] = hashed[ord("0")]  # a number counts by its size, not by its digits
    hashed[kind <= _LINE] = 0
    length = START + END + 8
    powers = np.full(length, _MULTIPLIER, np.uint64)
    inverses = np.full(length, pow(_MULTIPLIER, -1, 1 << 64), np.uint64)
    powers[0] = inverses[0] = 1
    magnitudes = _mix(np.arange(1, MAGNITUDES + 1, dtype=np.uint64) << np.uint64(40))
    cues = np.zeros(BLOCK, np.uint8)
    tables = Tables(kind, hashed, np.cumprod(powers), np.cumprod(inverses), magnitudes, cues)
    for group, words in enumerate(_CUES):
        for word in words.split():
            codes = _codes(word)
            cues[_tokens(codes, TOKEN[kind[codes]], tables).words] = group + 1
    return tables


def _codes(text: str) -> NDArray[np.uint32]:
    codes: NDArray[np.uint32] = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return np.minimum(codes, np.uint32(0xFFFF))


def _tokens(codes: NDArray[np.uint32], token: NDArray[np.uint8], tables: Tables) -> _Tokens:
    """Runs of letters, runs of digits, single symbols, single ideographs, and pairs of neighbours."""
    begins = token >= _SINGLE
    begins[0] = True
    begins[1:] |= token[1:] != token[:-1]
    begins &= token > 0
    starts = begins.nonzero()[0]
    if not len(starts):
        nothing = np.zeros(0, np.uint64)
        return _Tokens(nothing, nothing, np.zeros(0), np.zeros(0, np.int64))
    weighted = tables.hashed[codes] * tables.powers[: len(codes)]
    words = np.add.reduceat(weighted, starts) * tables.inverses[starts]
    sizes, magnitudes = _numbers(codes, token)
    words[token[starts] == _NUMBER] = tables.magnitudes[magnitudes]
    return _Tokens(words >> _SHIFT, (words[:-1] * _PAIRING + words[1:]) >> _SHIFT, sizes, magnitudes)


def _numbers(
    codes: NDArray[np.uint32], token: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """ln(1 + value) and size class of each run of digits."""
    at = (token == _NUMBER).nonzero()[0]
    if not len(at):
        return np.zeros(0), np.zeros(0, np.int64)
    begins = np.ones(len(at) + 1, np.bool_)
    begins[1:-1] = at[1:] != at[:-1] + 1
    first = begins.nonzero()[0]
    place = np.repeat(first[1:], first[1:] - first[:-1]) - _PLACES[: len(at)]
    digit = np.minimum(codes[at] - np.uint32(ord("0")), 9)
    sizes = np.log1p(np.add.reduceat(digit * _TENS[np.minimum(place, len(_TENS) - 1)], first[:-1]))
    return sizes, size_classes(sizes)


def size_classes(sizes: NDArray[np.float64]) -> NDArray[np.int64]:
    """The classes of numbers from ln(1 + value)."""
    return np.minimum((sizes * (2 / math.log(2))).astype(np.int64), MAGNITUDES - 1)


def _grams(codes: NDArray[np.uint32], token: NDArray[np.uint8], tables: Tables) -> NDArray[np.uint64]:
    """Hashes of the character 4-grams that lie within one word.

    Adding 3- and 5-grams took a fifth of a prediction's time and improved no table's results.
    """
    inside = np.zeros(len(codes) + 2, np.bool_)
    inside[1:-1] = (token == _WORD) | (token == _NUMBER)
    chars = np.full(len(inside), _EDGE)
    np.copyto(chars[1:-1], tables.hashed[codes], where=inside[1:-1])
    pairs = chars[:-1] * _RADIX + chars[1:]
    fours: NDArray[np.uint64] = pairs[:-2] * _SQUARE + pairs[2:]
    return fours[inside[1:-2] & inside[2:-1]]


def part_read(prompt: str) -> str:
    """The characters that are read: all of them, or the first 3,072 and the last 1,024."""
    return prompt if len(prompt) <= START + END else f"{prompt[:START]}\n{prompt[-END:]}"


def counts_of_part(part: str, length: int) -> NgramCounts:
    """The n-grams of a prompt of `length` characters, of which `part_read` gave this part."""
    tables = text_tables()
    codes = _codes(part or " ")
    kind = tables.kind[codes]
    token = TOKEN[kind]
    tokens = _tokens(codes, token, tables)
    grams = _grams(codes, token, tables) >> _SHIFT | np.uint64(BLOCK)
    every = np.concatenate((tokens.words, tokens.pairs, grams)).astype(np.uint16)
    every.sort()
    last = np.ones(len(every) + 1, np.bool_)
    np.not_equal(every[1:], every[:-1], out=last[1:-1])
    first = last.nonzero()[0]
    indices = every[first[:-1]].astype(np.int32)
    kinds = np.bincount(kind, minlength=_KINDS)
    dense = _dense(length, kinds, tokens, int(indices.searchsorted(BLOCK)), tables.cues)
    return NgramCounts(indices, first[1:] - first[:-1], dense)


def weighted(counted: NgramCounts) -> Features:
    """The features of a prompt with these n-grams."""
    values = WEIGHTS[counted.counts]
    border = int(counted.indices.searchsorted(BLOCK))
    _normalise(values[:border])
    _normalise(values[border:])
    return Features(counted.indices, values, counted.dense)


def ngram_features(prompt: str) -> Features:
    """The features of a prompt. Of a long one only the first 3,072 and the last 1,024 characters are read."""
    return weighted(counts_of_part(part_read(prompt), len(prompt)))


def _normalise(block: NDArray[np.float32]) -> None:
    block /= math.sqrt(float(block @ block)) or 1.0


WEIGHTS = 1 + np.log(np.maximum(np.arange(2 * (START + END) + 32), 1)).astype(np.float32)


def _dense(
    length: int, kinds: NDArray[np.int64], tokens: _Tokens, distinct: int, cues: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Shares and sizes, then ln(1 + count) of character kinds, number sizes and cue words."""
    words, sizes = len(tokens.words), tokens.sizes
    largest = [*sorted(sizes.tolist())[:-4:-1], 0.0, 0.0, 0.0][:3] if len(sizes) else [0.0, 0.0, 0.0]
    letters = int(kinds[_LOWER] + kinds[_UPPER] + kinds[_LETTER])
    leading = [
        math.log1p(length),
        math.log1p(words),
        distinct / (2 * words or 1),
        letters / (words or 1) / 10,
        math.log1p(len(sizes)),
        *largest,
        float(sizes.mean()) if len(sizes) else 0.0,
        float(sizes[-1]) if len(sizes) else 0.0,
    ]
    dense = np.empty(DENSE, np.float32)
    dense[: len(leading)] = leading
    counts = np.concatenate(
        (
            kinds,
            np.bincount(tokens.magnitudes >> 1, minlength=MAGNITUDES // 2),
            np.bincount(cues[tokens.words], minlength=len(_CUES) + 1)[1:],
        )
    )
    np.log1p(counts, out=dense[len(leading) :], casting="same_kind")
    return np.minimum(dense, 100.0)


def ngram_matrix(prompts: Sequence[str]) -> Matrix:
    """`ngram_features` of every prompt, one row each."""
    return stacked([ngram_features(prompt) for prompt in prompts], DENSE)


class NgramEncoder:
    """`ngram_features` behind the protocol of encoders."""

    identity: Mapping[str, Any] = {"kind": "hashed"}
    width = SIZE

    def features(self, prompt: str) -> Features:
        """See `Encoder.features`."""
        return ngram_features(prompt)

    def encode_all(self, prompts: Sequence[str]) -> Matrix:
        """See `Encoder.encode_all`."""
        return ngram_matrix(prompts)


HASHED = NgramEncoder()
