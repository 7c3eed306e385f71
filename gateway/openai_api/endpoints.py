"""The three endpoints that are forwarded to a backend, and how they differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from gateway.openai_api.requests import Request, parse_chat, parse_completion, parse_embedding


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint: how its requests are parsed, and what a tier can change in them."""

    path: str
    parse: Callable[[bytes], Request]
    has_tiers: bool = True
    """The model generates text, so a tier is chosen."""
    has_template: bool = False
    """The backend renders a chat template, so a tier can control the thinking and not only the length."""
    cap_field: str = "max_tokens"
    """The field that limits the completion."""
    default_max_tokens: int | None = None
    """The length that the API defines for a request without `max_tokens`."""

    def with_default_length(self, request: Request) -> Request:
        """The request, with the API's default length as the client's limit if it has no `max_tokens`."""
        if self.default_max_tokens is None or "max_tokens" in request.fields:
            return request
        return replace(
            request, client_limits=replace(request.client_limits, max_tokens=self.default_max_tokens)
        )


CHAT = Endpoint("/v1/chat/completions", parse_chat, has_template=True, cap_field="max_completion_tokens")
COMPLETIONS = Endpoint("/v1/completions", parse_completion, default_max_tokens=16)
EMBEDDINGS = Endpoint("/v1/embeddings", parse_embedding, has_tiers=False)
ENDPOINTS = (CHAT, COMPLETIONS, EMBEDDINGS)
