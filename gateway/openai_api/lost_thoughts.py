"""Notices a thought in the answer of a stream, as a backend without its reasoning parser sends it."""

from __future__ import annotations

import json
import re

from gateway.openai_api.thought_marks import LOOK, closing_mark, opening_mark

# The text of a delta, as in "content":" the"
_TEXT = re.compile(rb'"content": ?("(?:[^"\\]|\\.)*")')

_FIRST_CHARACTERS = "<[◁atH"  # of the marks that open a thought
_LESS, _BACKSLASH = b"<\\"
_string = json.JSONDecoder(strict=False).decode
_TRIANGLE = "◁".encode()
_MARK_STARTS = ("<", "◁")
_ESCAPED = (b"\\u003c", b"\\u25c1")
"""How JSON may write what the closing marks begin with that stand alone, `<` and `◁`."""
_TAIL = 256
"""Characters before a block that are kept, as a mark may be spread over many deltas."""


class LostThought:
    """Watches the beginning of an answer, and then for the end of its thought.

    It costs nothing once it is clear that the parser works: reasoning has passed, or an answer has begun.
    """

    def __init__(self, *, expected: bool) -> None:
        """expected: the model was told to think. An answer without reasoning may then be one long thought."""
        self._expected = expected
        self._begun = False
        """It is clear whether the answer opens a thought."""
        self._tail = ""
        """The end of the answer so far; all of it until it has begun."""
        self._unread = b""
        """The block before, in place of the tail, if no mark is under way in it."""
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
        if self._begun and not self.mark and not self._may_close(block):
            self._tail, self._unread = "", block
            return None
        if self._unread:
            self._tail, self._unread = "".join(_texts(self._unread)), b""
        earlier, texts = self._tail, _texts(block)
        text = earlier + "".join(texts)
        if not self._begun and not self._opens(text):
            self._tail = text.lstrip()  # a model may go on and on with white space
            return None
        closing = closing_mark(text, opened=self.mark is not None)
        if closing is None:
            self._tail = text[-_TAIL:]
            return None
        self.mark, self.closed, self.watching = self.mark or closing[1], True, False
        return _deltas_from(texts, closing.end() - len(earlier))

    @property
    def passes(self) -> bool:
        """A block in which no mark can begin need not be looked at, but its text must be told to `passed`."""
        return self._begun and not self.mark and not any(map(self._tail.__contains__, _MARK_STARTS))

    def passed(self, text: bytes) -> None:
        """Note the end of the latest text that was not looked at."""
        self._tail, self._unread = text.decode(errors="replace"), b""

    def _may_close(self, block: bytes) -> bool:
        """Whether a mark may be under way that closes a thought which the chat template has opened."""
        tail = self._tail
        if _LESS in block or (tail and any(map(tail.__contains__, _MARK_STARTS))):
            return True
        # a search for a number, that is for one byte, is several times faster than for bytes
        return (_BACKSLASH in block and any(map(block.__contains__, _ESCAPED))) or (
            _TRIANGLE[0] in block and _TRIANGLE in block
        )

    def _opens(self, text: str) -> bool:
        """Read the beginning of the answer. Returns whether a thought may be under way in it."""
        start = text.lstrip()
        if not start:
            return False
        self.mark = opening_mark(start)
        undecided = not self.mark and start[0] in _FIRST_CHARACTERS and len(start) < LOOK
        if undecided and not closing_mark(start):
            return False
        self._begun = True
        self.watching = self._expected or self.mark is not None
        return self.watching


def _texts(block: bytes) -> list[str]:
    return [
        text[1:-1].decode(errors="replace")
        if _BACKSLASH not in text
        else _string(text.decode(errors="replace"))
        for text in _TEXT.findall(block)
    ]


def _deltas_from(texts: list[str], position: int) -> int:
    """How many of these texts hold something after a position in all of them together."""
    count, end = 0, 0
    for text in texts:
        end += len(text)
        count += bool(text[max(0, len(text) - max(0, end - position)) :].strip())
    return count
