"""An upper bound on the prompt tokens of a request, before a backend has counted them. No I/O."""

from __future__ import annotations

from gateway.config.models import ImageTokens
from gateway.openai_api.images import Size
from gateway.openai_api.messages import Medium, changing
from gateway.openai_api.requests import Request

TEMPLATE_TOKENS = 256
"""Upper bound on the tokens that a chat template adds to the text in a request body."""

_AROUND = 16  # tokens around an image: its begin, its end and its number
_UNKNOWN = 32_768
"""Tokens of something that may fill the context, while no backend has said how long that is."""


def prompt_bound(
    body: bytes, request: Request, image: ImageTokens | None = None, context: int | None = None
) -> int:
    """Upper bound on the tokens of all prompts in a request body.

    A token of text has at least one byte. An image is bounded by its family's rule, and other media by the
    context, because the backend refuses a prompt that exceeds it.
    """
    media = request.media + changing(request.fields)
    bound = len(body) + TEMPLATE_TOKENS + request.embeds * (context or max(_UNKNOWN, len(body)))
    if media:
        bound += sum(medium_bound(medium, image, context) - medium.payload for medium in media)
    return bound if context is None else min(bound, request.prompts * context)


def medium_bound(medium: Medium, image: ImageTokens | None, context: int | None) -> int:
    """Upper bound on the tokens of one medium."""
    if medium.image and image:
        most = image.most + _AROUND
        tokens = most if medium.size is None else min(image_tokens(medium.size, image) + _AROUND, most)
    else:
        tokens = context or max(_UNKNOWN, medium.payload)
    return tokens if context is None else min(tokens, context)


def image_tokens(size: Size, image: ImageTokens) -> int:
    """The tokens of an image of this size: one for each square, and one at the end of each row.

    A backend may turn a photograph by its EXIF data, so that its columns become rows.
    """
    columns, rows = (-(-side // image.pixels) for side in size)
    return max(min(columns * rows + max(columns, rows), image.most), image.least)
