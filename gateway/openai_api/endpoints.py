"""The three endpoints that reach a backend, and what differs between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from gateway.openai_api.requests import Request, parse_chat, parse_completion, parse_embedding


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One kind of request: how it is read, and what a tier can change in it."""

    path: str
    parse: Callable[[bytes], Request]
    has_tiers: bool = True
    """Whether the model generates text, so that a tier is chosen."""
    has_template: bool = False
    """Whether the backend renders a chat template, so that a tier can set the thinking beside the cap."""
    cap_field: str = "max_tokens"
    """The field that caps the completion."""
    default_max_tokens: int | None = None
    """The API's own cap for a request that states none."""

    def with_default_length(self, request: Request) -> Request:
        """The request with the API's own default cap stated, where the client stated none."""
        if self.default_max_tokens is None or "max_tokens" in request.fields:
            return request
        return replace(
            request, client_limits=replace(request.client_limits, max_tokens=self.default_max_tokens)
        )


CHAT = Endpoint("/v1/chat/completions", parse_chat, has_template=True, cap_field="max_completion_tokens")
COMPLETIONS = Endpoint("/v1/completions", parse_completion, default_max_tokens=16)
EMBEDDINGS = Endpoint("/v1/embeddings", parse_embedding, has_tiers=False)
ENDPOINTS = (CHAT, COMPLETIONS, EMBEDDINGS)
