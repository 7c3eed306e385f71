"""The bound on a prompt is never too low, and no higher than it has to be."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.loader import builtin_families
from gateway.config.models import Family, ImageTokens
from gateway.openai_api.messages import Medium
from gateway.openai_api.requests import parse_chat, parse_completion
from gateway.routing.prompt import image_tokens, medium_bound, prompt_bound
from tests.openai_api.test_messages import IMAGE

FAMILIES = {name: Family.model_validate(entry) for name, entry in builtin_families().items()}
QWEN = FAMILIES["qwen3"].image
assert QWEN


def qwen_tokens(width: int, height: int, factor: int, least: int, most: int) -> int:
    """The tokens of an image by the `smart_resize` of Qwen2.5-VL (28 pixels) and Qwen3-VL (32)."""
    rows, columns = (max(factor, round(side / factor) * factor) for side in (height, width))
    if rows * columns > most * factor**2:
        scale = math.sqrt(height * width / (most * factor**2))
        rows, columns = (max(factor, math.floor(side / scale / factor) * factor) for side in (height, width))
    elif rows * columns < least * factor**2:
        scale = math.sqrt(least * factor**2 / (height * width))
        rows, columns = (math.ceil(side * scale / factor) * factor for side in (height, width))
    return rows * columns // factor**2


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_qwen_images(width: int, height: int) -> None:
    """The bound of the Qwen families covers what their processors make of any image that they take."""
    width, height = max(width, height // 199 + 1), max(height, width // 199 + 1)  # they refuse 200 to 1
    assert QWEN
    bound = medium_bound(Medium(image=True, size=(width, height)), QWEN, None)

    assert bound >= qwen_tokens(width, height, 28, 4, 16_384)
    assert bound >= qwen_tokens(width, height, 32, 64, 16_384)
    assert bound <= 16_384 + 16


@pytest.mark.parametrize("name", ["qwen3", "magistral"])
def test_images_that_are_turned(name: str) -> None:
    """An image has one bound, whether its EXIF data turn it or not: a tall one has more ends of rows."""
    bounds = {
        medium_bound(Medium(image=True, size=size), FAMILIES[name].image, None)
        for size in ((28, 28 * 50), (28 * 50, 28))
    }
    assert len(bounds) == 1
    assert min(bounds) >= 100


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_pixtral_images(width: int, height: int) -> None:
    """The bound of Magistral covers Pixtral, which puts a token at the end of every row."""
    image = FAMILIES["magistral"].image
    assert image
    ratio = max(width / 1540, height / 1540, 1)
    columns, rows = ((math.floor(side / ratio) - 1) // 28 + 1 for side in (width, height))

    bound = medium_bound(Medium(image=True, size=(width, height)), image, None)
    assert bound >= (max(columns, 1) + 1) * max(rows, 1)


def test_a_photograph_is_not_its_bytes() -> None:
    """400 kB of a photograph of 1,000 by 800 pixels are about 1,100 tokens."""
    photograph = Medium(400_000, True, (1000, 800))
    assert QWEN

    assert 1000 < medium_bound(photograph, QWEN, 32_768) < 1200
    assert image_tokens((1, 1), ImageTokens(most=1000)) == 256


@pytest.mark.parametrize(
    ("medium", "context", "tokens"),
    [
        (Medium(), 4096, 4096),
        (Medium(), None, 32_768),
        (Medium(90_000), None, 90_000),
        (Medium(image=True), 131_072, 16_400),
        (Medium(image=True), 4096, 4096),
    ],
)
def test_what_is_unknown(medium: Medium, context: int | None, tokens: int) -> None:
    """Media without a rule may fill the context, and an image without a size is the largest."""
    assert medium_bound(medium, QWEN, context) == tokens
    if medium.image:
        assert medium_bound(medium, None, context) == context or medium_bound(medium, None, None) == 32_768


def bound(fields: dict[str, Any], **known: Any) -> int:
    body = json.dumps({"model": "m"} | fields).encode()
    return prompt_bound(body, parse_chat(body), **known)


def test_text_and_images_add_up() -> None:
    """The data of an image is no text; everything else in the body is."""
    text = {"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 1000}] + [IMAGE] * 3}]}
    image = medium_bound(Medium(image=True, size=(300, 200)), QWEN, None)

    known = bound(text, image=QWEN)
    assert 3 * image + 1000 < known < 3 * image + 1000 + 256 + 300
    assert bound(text, image=QWEN, context=500) == 500
    assert bound(text, context=200_000) == 200_000


def test_prompts_as_embeddings() -> None:
    """An embedded prompt may fill the context: a tensor can repeat one row for ever."""
    body = json.dumps({"model": "m", "prompt_embeds": ["AAAA"] * 3, "prompt": "x"}).encode()

    assert prompt_bound(body, parse_completion(body), context=1000) > 3000
