"""Notices a thought in the answer of a stream, as a backend without its reasoning parser sends it."""

from __future__ import annotations

import json
import re

from gateway.openai_api.thought_marks import LOOK, closing_mark, opening_mark

# The text of a delta, as in "content":" the"
_TEXT = re.compile(rb'"content": ?("(?:[^"\\]|\\.)*")')

_FIRST_CHARACTERS = "<[◁atH"  # of the marks that open a thought
_CLOSING = (b"think", b"THINK", b"final", b"channel|>", b"/mm:", b"thought>", b"my response:")


class LostThought:
    """Watches the beginning of an answer, and then for the end of its thought.

    It costs nothing once it is clear that the parser works: reasoning has passed, or an answer has begun.
    """

    def __init__(self, *, expected: bool) -> None:
        """expected: the model was told to think. An answer without reasoning may then be one long thought."""
        self._expected = expected
        self._start = ""
        """The beginning of the answer, until it is clear whether it opens a thought."""
        self._begun = False
        self._before = b""
        """The block before, as a mark may be spread over two."""
        self.watching = True
        self.mark: str | None = None
        """The mark of the thought."""
        self.closed = False
        """The thought has ended, and what follows is the answer."""

    def look(self, block: bytes, *, thinks: bool) -> int | None:
        """Read a block of events. If the thought ends in it, returns how many of its deltas are the answer's.

        thinks: reasoning has passed as reasoning.
        """
        if thinks:
            self.watching = False
            return None
        if not self._begun and not self._opens(block):
            return None
        before, self._before = self._before, block
        if not any(part in block for part in _CLOSING):
            return None
        earlier, texts = "".join(_texts(before)), _texts(block)
        closing = closing_mark(earlier + "".join(texts), opened=self.mark is not None)
        if closing is None:
            return None
        self.mark, self.closed, self.watching = self.mark or closing[1], True, False
        return _deltas_from(texts, closing.end() - len(earlier))

    def _opens(self, block: bytes) -> bool:
        """Read the beginning of the answer. Returns whether a thought may be under way in it."""
        self._start = (self._start + "".join(_texts(block))).lstrip()
        if not self._start:
            return False
        self.mark = opening_mark(self._start)
        if not self.mark and self._start[0] in _FIRST_CHARACTERS and len(self._start) < LOOK:
            return False
        self._begun = True
        self.watching = self._expected or self.mark is not None
        return self.watching


def _texts(block: bytes) -> list[str]:
    return [json.loads(text.decode(errors="replace"), strict=False) for text in _TEXT.findall(block)]


def _deltas_from(texts: list[str], position: int) -> int:
    """How many of these texts hold something after a position in all of them together."""
    count, end = 0, 0
    for text in texts:
        end += len(text)
        count += bool(text[max(0, len(text) - max(0, end - position)) :].strip())
    return count
