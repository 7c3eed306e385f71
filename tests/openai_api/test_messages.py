"""What a chat carries beside text."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from gateway.openai_api.messages import Medium, changing
from gateway.openai_api.requests import parse_chat, parse_embedding
from tests.openai_api.test_images import png

URL = "data:image/png;base64," + base64.b64encode(png(300, 200)).decode()
IMAGE = {"type": "image_url", "image_url": {"url": URL}}


def media(*parts: Any) -> tuple[Medium, ...]:
    body = {"model": "m", "messages": [{"role": "user", "content": list(parts)}]}
    return parse_chat(json.dumps(body).encode()).media


@pytest.mark.parametrize(
    "part", ["plain", {"type": "text", "text": "x"}, {"text": "x"}, {"type": "refusal", "refusal": "no"}]
)
def test_texts_are_no_media(part: Any) -> None:
    """Texts count as their bytes, whatever they say."""
    assert media(part) == ()


@pytest.mark.parametrize(
    "part",
    [
        IMAGE,
        {"type": "image_url", "image_url": URL},
        {"type": "input_image", "image_url": URL, "detail": "high"},
        {"image_url": {"url": URL}},
        {"type": "text", "uuid": "u", "image_url": {"url": URL}},
    ],
)
def test_images_in_the_body(part: Any) -> None:
    """An image has its size, and its data is no text."""
    ((payload, image, size),) = media("before", part)

    assert (image, size) == (True, (300, 200))
    assert len(URL) < payload <= len(json.dumps(part["image_url"]))


@pytest.mark.parametrize(
    "url", ["https://example.com/a.png", "file:///a.png", None, "", "data:image/tiff;base64,SUkqAAAA"]
)
def test_images_without_a_size(url: str | None) -> None:
    """The size of an image that is elsewhere, or in another format, is unknown."""
    ((_, image, size),) = media({"type": "image_url", "image_url": {"url": url}})

    assert (image, size) == (True, None)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
        {"type": "image_embeds", "image_embeds": "AAAA"},
        {"type": "prompt_embeds", "data": "AAAA"},
        {"type": "text", "text": "x", "uuid": "u"},
        {"type": "new_kind", "new_kind": 1},
        {"type": 7, "text": "x"},
        {"uuid": "u", "video_url": None},
        IMAGE | {"video_url": {"url": "data:video/mp4;base64,AAAA"}, "uuid": "u"},
    ],
)
def test_other_media(part: Any) -> None:
    """Whatever is neither text nor an image may fill the context."""
    assert media(part) == (Medium(),)


def test_escapes_hide_nothing() -> None:
    """A key or a type that is written with escapes means the same."""
    raw = json.dumps({"model": "m", "messages": [{"content": [IMAGE]}]}).replace(
        "image_url", "image\\u005furl"
    )

    assert parse_chat(raw.encode()).media[0].size == (300, 200)


def test_every_message_and_embeddings() -> None:
    """Media count in messages of every role, and in embeddings of chats."""
    messages = [{"role": role, "content": [IMAGE]} for role in ("system", "tool", "assistant")]
    body = json.dumps({"model": "m", "messages": messages}).encode()

    assert len(parse_chat(body).media) == len(parse_embedding(body).media) == 3
    assert parse_embedding(b'{"model":"m","input":"a","messages":null}').media == ()


def test_fields_that_change_tokens() -> None:
    """A client's own template or media settings may turn anything into any number of tokens."""
    body = {"model": "m", "messages": [], "mm_processor_kwargs": {"max_pixels": 10**9}, "chat_template": None}

    assert changing(parse_chat(json.dumps(body).encode()).fields) == (Medium(),)
