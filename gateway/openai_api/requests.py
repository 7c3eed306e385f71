"""Parses OpenAI requests: the fields that the gateway reads, and the limits that the client sets. No I/O.

A request keeps its top-level fields as the bytes that the client sent, so fields that the gateway does not
read pass through unchanged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.config.models import EFFORTS
from gateway.errors import InvalidJson, InvalidRequest
from gateway.openai_api.messages import Medium, Message, media_of, text_of

Fields = dict[str, Raw]
"""The top-level fields of a JSON object. Each value is the bytes that the client sent."""

_TRUE, _NULL = Raw(b"true"), Raw(b"null")

AtLeastOne = Annotated[int, Meta(ge=1)]


class StreamOptions(Struct):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None

    @property
    def counts(self) -> bool:
        """The client asks for a running count in every chunk, for which vLLM needs both options."""
        return bool(self.include_usage and self.continuous_usage_stats)


class Reasoning(Struct):
    """The `reasoning` object of OpenRouter and of OpenAI's Responses API."""

    effort: str | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    enabled: bool | None = None
    exclude: bool | None = None


class Thinking(Struct):
    """Anthropic's `thinking` object."""

    type: Literal["enabled", "disabled", "adaptive"] = "enabled"
    budget_tokens: Annotated[int, Meta(ge=0)] | None = None


class ChatTemplate(Struct):
    """The chat template variables that control thinking, under the names of all model families."""

    enable_thinking: bool | None = None
    thinking: bool | None = None
    reasoning_effort: str | None = None
    thinking_budget: int | None = None


class _Common(Struct, kw_only=True):
    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    best_of: int | None = None
    max_tokens: AtLeastOne | None = None
    thinking_token_budget: Annotated[int, Meta(ge=-1)] | None = None
    metadata: dict[str, Any] | None = None


class ChatBody(_Common, kw_only=True):
    messages: list[Message]
    max_completion_tokens: AtLeastOne | None = None
    reasoning_effort: str | None = None
    reasoning: Reasoning | None = None
    thinking: Thinking | None = None
    chat_template_kwargs: ChatTemplate | None = None
    tools: list[Raw] | None = None


class CompletionBody(_Common, kw_only=True):
    prompt: str | list[str | int | list[int]] | None = None
    prompt_embeds: str | list[str] | None = None


class EmbeddingBody(Struct):
    model: str
    messages: list[Message] | None = None


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """The client's limits, in one form for all dialects of the API. Each is an upper bound."""

    effort: str | None = None
    """The highest reasoning effort, such as `low`."""
    thinking: int | None = None
    """The most reasoning tokens; 0 means no reasoning."""
    max_tokens: int | None = None
    """The most completion tokens, reasoning included."""
    min_tokens: int = 0
    """The fewest completion tokens, reasoning included. Unlike the others, it asks for more."""


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed request."""

    fields: Fields
    model: str
    stream: bool = False
    client_limits: ClientLimits = ClientLimits()
    prompt: str = ""
    """The text that the head predicts for, of a chat the last user message; empty for token ids."""
    conversation: str = ""
    """The end of all texts, which the operator's rules search."""
    metadata: dict[str, Any] | None = None
    tools: bool = False
    wants_usage: bool = False
    """The client asked for a usage event at the end of the stream."""
    wants_counts: bool = False
    """The client asked for a running count in every chunk."""
    choices: int = 1
    """How many completions the backend generates, over all prompts."""
    prompts: int = 1
    embeds: int = 0
    """Those of the prompts that are given as embeddings."""
    media: tuple[Medium, ...] = ()
    """Images and other things in the messages that are not text."""

    @property
    def shows_reasoning(self) -> bool:
        """The backend sends the reasoning text, so it can be counted as it passes."""
        return self.fields.get("include_reasoning", _TRUE) in (_TRUE, _NULL)


_fields = msgspec.json.Decoder(Fields)
_chat = msgspec.json.Decoder(ChatBody)
_completion = msgspec.json.Decoder(CompletionBody)
_embedding = msgspec.json.Decoder(EmbeddingBody)
_encoder = msgspec.json.Encoder()

encode = _encoder.encode
"""Encode Structs, plain data and Raw as JSON."""

_SEARCHED = 20_000  # characters of conversation that rules search, so that no regular expression takes long


def parse_chat(body: bytes) -> Request:
    """Parse a chat completion request.

    Raises: InvalidJson, InvalidRequest.
    """
    fields, chat = _decode(_fields, body), _decode(_chat, body)
    if chat.reasoning and chat.reasoning.exclude:
        fields.setdefault("include_reasoning", Raw(b"false"))
    texts = [text_of(message) for message in chat.messages]
    asked = [text for text, message in zip(texts, chat.messages, strict=True) if message.role == "user"]
    return Request(
        fields=fields,
        model=chat.model,
        stream=bool(chat.stream),
        client_limits=_client_limits(chat),
        prompt=(asked or texts or [""])[-1],
        conversation="\n".join(texts)[-_SEARCHED:],
        metadata=chat.metadata,
        tools=bool(chat.tools),
        wants_usage=bool(chat.stream_options and chat.stream_options.include_usage),
        wants_counts=bool(chat.stream_options and chat.stream_options.counts),
        choices=max(chat.n or 1, chat.best_of or 1, 1),
        media=media_of(chat.messages, body),
    )


def parse_completion(body: bytes) -> Request:
    """Parse a legacy completion request.

    Raises: InvalidJson, InvalidRequest.
    """
    fields, completion = _decode(_fields, body), _decode(_completion, body)
    prompt = completion.prompt
    embeds = _count(completion.prompt_embeds)
    prompts = _prompts(prompt, embeds)
    if isinstance(prompt, list):
        prompt = "\n".join(item for item in prompt if isinstance(item, str))
    budget = completion.thinking_token_budget
    return Request(
        fields=fields,
        model=completion.model,
        stream=bool(completion.stream),
        client_limits=ClientLimits(
            thinking=None if budget == -1 else budget, max_tokens=completion.max_tokens
        ),
        prompt=prompt or "",
        conversation=(prompt or "")[-_SEARCHED:],
        metadata=completion.metadata,
        wants_usage=bool(completion.stream_options and completion.stream_options.include_usage),
        wants_counts=bool(completion.stream_options and completion.stream_options.counts),
        choices=max(completion.n or 1, completion.best_of or 1, 1) * prompts,
        prompts=prompts,
        embeds=embeds,
    )


def _count(embeds: str | list[str] | None) -> int:
    return len(embeds) if isinstance(embeds, list) else 1 if embeds else 0


def _prompts(prompt: str | list[str | int | list[int]] | None, vectors: int) -> int:
    """How many prompts a legacy completion has.

    `"a"` and `[1,2]`, which is one prompt in token ids, are one; `["a","b"]` and `[[1],[2]]` are two. Prompts
    given as embeddings, `vectors`, count in addition.
    """
    if isinstance(prompt, list):
        return vectors + (sum(not isinstance(item, int) for item in prompt) or 1)
    return vectors if prompt is None and vectors else vectors + 1


def parse_embedding(body: bytes) -> Request:
    """Parse the fields of an embedding request that the gateway reads.

    Raises: InvalidJson, InvalidRequest.
    """
    embedding = _decode(_embedding, body)
    media = media_of(embedding.messages or [], body)
    return Request(fields=_decode(_fields, body), model=embedding.model, media=media)


T = TypeVar("T")


def with_usage(options: Raw | None, *, counts: bool = False) -> Raw:
    """The client's `stream_options` with usage turned on; with `counts`, also running counts."""
    given = {} if options is None or bytes(options) == b"null" else _fields.decode(options)
    asked = {"include_usage": True} | ({"continuous_usage_stats": True} if counts else {})
    return Raw(encode(given | asked))


def decode_as(kind: type[T], body: bytes) -> T:
    """Parse the body of a request to the gateway's own API.

    Raises: InvalidJson, InvalidRequest.
    """
    return _decode(msgspec.json.Decoder(kind), body)


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        param = path.rstrip("`").removeprefix("$").removeprefix(".") or None
        if param is None and (missing := re.search(r"missing required field `(\w+)`", message)):
            param = missing[1]
        raise InvalidRequest(f"{message}{f' at {param}' if path else ''}", param=param) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidJson(f"The request body is not valid JSON: {error}") from None
    except RecursionError:
        raise InvalidJson("The request body is nested too deeply") from None


def _client_limits(chat: ChatBody) -> ClientLimits:
    """The lowest effort and the lowest budget of all that the request states."""
    efforts = [chat.reasoning_effort]
    budgets = [chat.thinking_token_budget if chat.thinking_token_budget != -1 else None]
    if reasoning := chat.reasoning:
        efforts.append("none" if reasoning.enabled is False else reasoning.effort)
        budgets.append(reasoning.max_tokens)
    if thinking := chat.thinking:
        efforts.append("none" if thinking.type == "disabled" else None)
        budgets.append(thinking.budget_tokens)
    if template := chat.chat_template_kwargs:
        off = template.enable_thinking is False or template.thinking is False
        efforts.append("none" if off else template.reasoning_effort)
        budgets.append(template.thinking_budget if (template.thinking_budget or 0) >= 0 else None)
    stated = [effort for effort in efforts if effort is not None]
    return ClientLimits(
        effort=min(stated, key=effort_rank) if stated else None,
        thinking=min((budget for budget in budgets if budget is not None), default=None),
        max_tokens=chat.max_tokens if chat.max_completion_tokens is None else chat.max_completion_tokens,
    )


_RANKS = {effort: rank for rank, effort in enumerate(EFFORTS)}


def effort_rank(effort: str) -> int:
    """The position of an effort, lowest first; an unknown word ranks lowest, so it never adds thinking."""
    return _RANKS.get(effort.lower(), 0)
