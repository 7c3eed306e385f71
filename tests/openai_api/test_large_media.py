"""A large request has the same media as if it were parsed whole."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import msgspec
import pytest

from gateway.openai_api.endpoints import CHAT, COMPLETIONS
from gateway.openai_api.large_requests import LARGE_BODY
from gateway.openai_api.messages import Medium
from gateway.openai_api.requests import parse_chat

PADDING = "word " * 80_000


def png(width: int, height: int, pad: int = 0) -> dict[str, Any]:
    """A part with an image of this size, and of at least `pad` bytes."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunk = b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(header)) + chunk + b"\0" * pad
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def chat(*messages: Any) -> bytes:
    return msgspec.json.encode({"model": "m", "messages": messages})


def said(*parts: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": list(parts)}


TEXT = {"type": "text", "text": PADDING}


@pytest.mark.parametrize(
    "messages",
    [
        [said(png(640, 480, 600_000))],
        [said(png(640, 480)), *[{"role": "user", "content": PADDING}] * 3],
        [said(png(640, 480), TEXT, png(64, 32)), said(png(3584, 3584))],
        [said(TEXT, {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}})],
        [said(TEXT, {"type": "input_audio", "input_audio": {"data": "UklGRg==" * 60_000}})],
        [said(TEXT, "text", {"type": "text", "text": "text"})],
        [said(*[png(64, 64)] * 2_500)],
        [said(png(640, 480, 5_000_000))],
    ],
)
def test_media_are_those_of_the_whole_request(messages: list[Any]) -> None:
    """Images of all messages count, with their sizes and all of their bytes."""
    body = chat(*messages)
    assert len(body) > LARGE_BODY

    assert CHAT.parse(body).media == parse_chat(body).media


@pytest.mark.parametrize(
    "messages",
    [
        [said(*[{"type": "image_url", "image_url": {"url": "x"}}] * 45_000)],
        [said({"type": "image_url", "image_url": {"url": "x"}})] * 45_000,
    ],
)
def test_too_many_to_look_at(messages: list[Any]) -> None:
    """What is not looked at counts as a medium of unknown size."""
    assert Medium() in CHAT.parse(chat(*messages)).media


def test_embeddings_that_are_left_out_count() -> None:
    """Each prompt given as embeddings counts, also of very many."""
    body = msgspec.json.encode({"model": "m", "prompt_embeds": ["QUJD" * 300] * 500})

    assert COMPLETIONS.parse(body).embeds == 500
