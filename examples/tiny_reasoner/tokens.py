"""The tokenizer at run time. Reads tokenizer.json with only the standard library."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# The pattern of bpe.WORDS over the text this model reads, printable ASCII and line breaks.
WORDS = re.compile(r" ?[A-Za-z]+|[0-9]|[^\sA-Za-z0-9]|\n+|\s+")

CACHED = 32  # characters of a cached word; longer words rarely repeat, and many of them would fill the memory


def byte_letters() -> dict[int, str]:
    """The letter for each byte in a byte-level vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in plain}
    for place, byte in enumerate(byte for byte in range(256) if byte not in letters):
        letters[byte] = chr(256 + place)
    return letters


def _joined(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Join all occurrences of a pair in one pass; one at a time takes quadratic time on a long word."""
    joined = [parts[0]]
    for part in parts[1:]:
        if (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return joined


class Tokens:
    """Byte-level BPE."""

    def __init__(self, path: Path) -> None:
        saved: dict[str, Any] = json.loads(path.read_text("utf-8"))
        self._ids: dict[str, int] = dict(saved["model"]["vocab"])
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in saved["model"]["merges"]]
        self._ranks = {(left, right): rank for rank, (left, right) in enumerate(pairs)}
        self._added = {token["content"]: int(token["id"]) for token in saved["added_tokens"]}
        self._hidden = {int(token["id"]) for token in saved["added_tokens"] if token["special"]}
        self._letters = byte_letters()
        self._bytes = {letter: byte for byte, letter in self._letters.items()}
        self._texts = {index: text for text, index in self._ids.items()}
        self._split = re.compile("(" + "|".join(map(re.escape, self._added)) + ")")
        self._piece = functools.lru_cache(20_000)(self._merged)
        self.widest = max(map(len, self._ids.keys() | self._added.keys()))
        """Characters that one token stands for, at most."""

    def __len__(self) -> int:
        return len(self._ids.keys() | self._added.keys())

    @property
    def vocabulary(self) -> list[str]:
        """The tokens as written in tokenizer.json, in order of their ids."""
        ids = self._ids | self._added
        return sorted(ids, key=ids.__getitem__)

    def special(self, text: str) -> int:
        """The id of an added token."""
        return self._added[text]

    def encode(self, text: str) -> list[int]:
        """The ids of a text; added tokens in it are recognised."""
        ids: list[int] = []
        for part in self._split.split(text):
            if part in self._added:
                ids.append(self._added[part])
            else:
                for word in WORDS.findall(part):
                    ids += self._piece(word) if len(word) <= CACHED else self._merged(word)
        return ids

    def _merged(self, word: str) -> tuple[int, ...]:
        parts = [self._letters[byte] for byte in word.encode()]
        last = len(self._ranks)
        while len(parts) > 1:
            best = min(set(itertools.pairwise(parts)), key=lambda pair: self._ranks.get(pair, last))
            if best not in self._ranks:
                break
            parts = _joined(parts, best)
        return tuple(self._ids[part] for part in parts)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, without special tokens; incomplete characters become U+FFFD."""
        added = {index: text for text, index in self._added.items()}
        raw = bytearray()
        for index in ids:
            if index in self._hidden:
                continue
            if index in added:
                raw += added[index].encode()
            else:
                raw += bytes(self._bytes[letter] for letter in self._texts[index])
        return raw.decode("utf-8", errors="replace")
