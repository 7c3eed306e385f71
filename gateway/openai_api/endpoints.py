"""The endpoints that are forwarded to a backend, and how they differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec import Struct
from msgspec.structs import replace

from gateway.errors import InvalidJson
from gateway.openai_api.large_media import media_of_large
from gateway.openai_api.large_requests import LARGE_BODY, cut
from gateway.openai_api.python_json import as_standard_json
from gateway.openai_api.requests import (
    ChatBody,
    CompletionBody,
    EmbeddingBody,
    Request,
    encode,
    parse_chat,
    parse_completion,
    parse_embedding,
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint: how its requests are parsed, and what a tier can change in them."""

    path: str
    parse_small: Callable[[bytes], Request]
    body: type[Struct]
    """The fields that `parse_small` reads."""
    has_tiers: bool = True
    """The model generates text, so a tier is chosen."""
    has_template: bool = False
    """The backend renders a chat template, so a tier can control the thinking and not only the length."""
    counts: bool = True
    """Its tokens count against the budgets."""
    cap_field: str = "max_tokens"
    """The field that limits the completion."""
    binary: bool = False
    """The response may be bytes instead of JSON."""
    default_max_tokens: int | None = None
    """The length that the API defines for a request without `max_tokens`."""

    def parse(self, body: bytes) -> Request:
        """Parse a request of any size. One over `LARGE_BODY` takes long enough to belong into a thread.

        Raises: InvalidJson, InvalidRequest.
        """
        try:
            return self.parse_small(body) if len(body) <= LARGE_BODY else self._parse_large(body)
        except InvalidJson:
            rewritten = as_standard_json(body)
            if rewritten is body:
                raise
        return self.parse_small(rewritten) if len(rewritten) <= LARGE_BODY else self._parse_large(rewritten)

    def _parse_large(self, body: bytes) -> Request:
        large = cut(body, self.body.__struct_fields__)
        request = self.parse_small(encode(large.small))
        prompts = request.prompts + large.omitted_prompts
        fields = {name: value for name, value in large.fields.items() if name not in large.small}
        for name, value in request.fields.items():
            # A field that was read and written in another form has that form, others have the client's bytes.
            fields[name] = large.fields[name] if value == large.small.get(name) else value
        return replace(
            request,
            fields=fields,
            media=media_of_large(large.fields["messages"], large.contents)
            if "messages" in large.small
            else (),
            embeds=request.embeds + large.omitted_embeds,
            prompts=prompts,
            choices=request.choices // request.prompts * prompts,
        )

    def with_default_length(self, request: Request) -> Request:
        """The request, with the API's default length as the client's limit if it has no `max_tokens`."""
        if self.default_max_tokens is None or request.client_limits.max_tokens is not None:
            return request
        return replace(
            request, client_limits=replace(request.client_limits, max_tokens=self.default_max_tokens)
        )


CHAT = Endpoint(
    "/v1/chat/completions", parse_chat, ChatBody, has_template=True, cap_field="max_completion_tokens"
)
COMPLETIONS = Endpoint("/v1/completions", parse_completion, CompletionBody, default_max_tokens=16)
EMBEDDINGS = Endpoint("/v1/embeddings", parse_embedding, EmbeddingBody, has_tiers=False, binary=True)
TOKENIZE = Endpoint("/tokenize", parse_embedding, EmbeddingBody, has_tiers=False, counts=False)
DETOKENIZE = Endpoint("/detokenize", parse_embedding, EmbeddingBody, has_tiers=False, counts=False)
ENDPOINTS = (CHAT, COMPLETIONS, EMBEDDINGS, TOKENIZE, DETOKENIZE)
