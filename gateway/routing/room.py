"""How many completion tokens the context leaves beside a prompt. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.config.models import ImageTokens
from gateway.openai_api.messages import Medium
from gateway.routing.prompt import TEMPLATE_TOKENS, medium_bound

_SPARE = 32
_SPARE_SHARE = 1 / 128
"""Tokens, and a share of the prompt, by which a prompt may be longer than it was counted.

Another tier renders other marks of thinking, and some models render tools by other means than a template.
"""
_MEDIUM_TOKENS = 2048
"""A guess at the tokens of something whose size no rule tells, such as an image behind a URL."""
_CODE, _ENGLISH = 3, 4
"""Bytes of a token in source code and in English text."""
_LEAST = 256
"""Tokens that are tried where the estimate leaves none, because the prompt may fit after all."""


def counted_room(tokens: int, context: int) -> int | None:
    """The room beside a prompt of so many tokens; None if it fills the context."""
    left = context - tokens
    return left - min(_SPARE + int(tokens * _SPARE_SHARE), left // 4) if left > 0 else None


def estimated_room(text: int, media: int, context: int) -> int:
    """The room beside a prompt that nobody could count: on the safe side, as long as that leaves any.

    text: bytes of the texts. media: tokens of everything else.

    Three bytes are taken for a token, as in source code. Where that leaves less than a sixteenth of the
    context, English is supposed, which has four. Nothing is lost if the prompt does not fit at all: the
    backend refuses it, whatever we add.
    """
    code, english = (context - TEMPLATE_TOKENS - media - text // size for size in (_CODE, _ENGLISH))
    small = max(context // 16, 1)
    return max(code, min(english, small), min(_LEAST, small))


def estimated_tokens(media: Iterable[Medium], image: ImageTokens | None, context: int) -> int:
    """A guess at the tokens of media: what their rule says, or a usual size."""
    return sum(_estimate(medium, image, context) for medium in media)


def _estimate(medium: Medium, image: ImageTokens | None, context: int) -> int:
    bound = medium_bound(medium, image, context)
    return bound if medium.size and image else min(bound, _MEDIUM_TOKENS)
