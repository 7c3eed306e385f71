"""The visible text of an answer."""

from __future__ import annotations

import pytest

from gateway.evidence.measuring.replies import answer_text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"choices":[{"message":{"content":"42","reasoning":"because"}}]}', "42"),
        (b'{"choices":[{"message":{"content":null,"reasoning":"because"}}]}', ""),
        (b'{"choices":[{"message":{"content":"a"}},{"message":{"content":"b"}}]}', "a"),
        (b'{"choices":[{"message":{"content":[{"type":"text"}]}}]}', ""),
        (b'{"choices":[]}', None),
        (b'{"choices":[{"text":"42"}]}', None),
        (b'{"choices":7}', None),
        (b'{"object":"list"}', None),
        (b"<html>", None),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
    ],
)
def test_answer_text(body: bytes, text: str | None) -> None:
    """The text without the thought, the empty text where there is none, and None for other bodies."""
    assert answer_text(body) == text
