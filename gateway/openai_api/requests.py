"""The OpenAI wire format of requests: the fields we read, and what the client limits. No I/O.

Bodies are never re-modelled: a request is a mapping of top-level fields to the bytes the client sent, so
whatever we do not read passes through untouched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.config.models import EFFORTS
from gateway.errors import InvalidJson, InvalidRequest

Fields = dict[str, Raw]
"""A JSON object's top level; the values are the client's own bytes."""

_TRUE, _NULL = Raw(b"true"), Raw(b"null")

AtLeastOne = Annotated[int, Meta(ge=1)]


class Part(Struct):
    """One part of a message: text, image, audio…; only text is read."""

    text: str | None = None


class Message(Struct):
    role: str = ""
    content: str | list[Part | str] | None = None


class StreamOptions(Struct):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None

    @property
    def counts(self) -> bool:
        """Whether every chunk is to say how many tokens there were; vLLM does so beside the usage only."""
        return bool(self.include_usage and self.continuous_usage_stats)


class Reasoning(Struct):
    """OpenRouter's and OpenAI Responses' `reasoning` object."""

    effort: str | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    enabled: bool | None = None
    exclude: bool | None = None


class Thinking(Struct):
    """Anthropic's `thinking` object."""

    type: Literal["enabled", "disabled", "adaptive"] = "enabled"
    budget_tokens: Annotated[int, Meta(ge=0)] | None = None


class ChatTemplate(Struct):
    """The template variables that switch thinking, under the names the families use."""

    enable_thinking: bool | None = None
    thinking: bool | None = None
    reasoning_effort: str | None = None
    thinking_budget: int | None = None


class _Common(Struct, kw_only=True):
    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
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
    best_of: int | None = None


class EmbeddingBody(Struct):
    model: str


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What the client asked of the reasoning, in one form for all dialects; every field is a ceiling.

    thinking: most reasoning tokens (0 = none). max_tokens: most completion tokens, reasoning included.
    """

    effort: str | None = None
    thinking: int | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed request. `prompt` is what the head judges, `conversation` what rules search."""

    fields: Fields
    model: str
    stream: bool = False
    client_limits: ClientLimits = ClientLimits()
    prompt: str = ""
    conversation: str = ""
    metadata: dict[str, Any] | None = None
    tools: bool = False
    wants_usage: bool = False
    wants_counts: bool = False
    choices: int = 1
    prompts: int = 1

    @property
    def shows_reasoning(self) -> bool:
        """Whether the reasoning is sent, so that it can be counted as it passes; vLLM hides it on demand."""
        return self.fields.get("include_reasoning", _TRUE) in (_TRUE, _NULL)


_fields = msgspec.json.Decoder(Fields)
_chat = msgspec.json.Decoder(ChatBody)
_completion = msgspec.json.Decoder(CompletionBody)
_embedding = msgspec.json.Decoder(EmbeddingBody)
_encoder = msgspec.json.Encoder()

encode = _encoder.encode
"""JSON bytes of anything made of Structs, plain data and Raw."""

_SEARCHED = 20_000  # characters of conversation that rules may search: bounds a slow regular expression


def parse_chat(body: bytes) -> Request:
    """Read a chat completion request; raises InvalidJson or InvalidRequest."""
    fields, chat = _decode(_fields, body), _decode(_chat, body)
    if chat.reasoning and chat.reasoning.exclude:
        fields.setdefault("include_reasoning", Raw(b"false"))
    texts = [_text(message.content) for message in chat.messages]
    asked = [text for text, message in zip(texts, chat.messages, strict=True) if message.role == "user"]
    return Request(
        fields=fields,
        model=chat.model,
        stream=bool(chat.stream),
        client_limits=_wish(chat),
        prompt=(asked or texts or [""])[-1],
        conversation="\n".join(texts)[-_SEARCHED:],
        metadata=chat.metadata,
        tools=bool(chat.tools),
        wants_usage=bool(chat.stream_options and chat.stream_options.include_usage),
        wants_counts=bool(chat.stream_options and chat.stream_options.counts),
        choices=max(chat.n or 1, 1),
    )


def parse_completion(body: bytes) -> Request:
    """Read a legacy completion request; raises InvalidJson or InvalidRequest."""
    fields, completion = _decode(_fields, body), _decode(_completion, body)
    prompt = completion.prompt
    prompts = _prompts(prompt, completion.prompt_embeds)
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
    )


def _prompts(prompt: str | list[str | int | list[int]] | None, embeds: str | list[str] | None) -> int:
    """How many prompts a legacy completion holds: a list of numbers is one, already in tokens; those that
    vLLM takes as vectors come on top."""
    vectors = len(embeds) if isinstance(embeds, list) else 1 if embeds else 0
    if isinstance(prompt, list):
        return vectors + (sum(not isinstance(item, int) for item in prompt) or 1)
    return vectors if prompt is None and vectors else vectors + 1


def parse_embedding(body: bytes) -> Request:
    """Read the one field of an embedding request that concerns us."""
    return Request(fields=_decode(_fields, body), model=_decode(_embedding, body).model)


T = TypeVar("T")


def with_usage(options: Raw | None, *, counts: bool = False) -> Raw:
    """The client's `stream_options` with usage asked for; with `counts`, a running count in every chunk."""
    given = {} if options is None or bytes(options) == b"null" else _fields.decode(options)
    asked = {"include_usage": True} | ({"continuous_usage_stats": True} if counts else {})
    return Raw(encode(given | asked))


def decode_as(kind: type[T], body: bytes) -> T:
    """A small request of our own; raises InvalidJson or InvalidRequest."""
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


def _text(content: str | list[Part | str] | None) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part if isinstance(part, str) else part.text or "" for part in content or ())


def _wish(chat: ChatBody) -> ClientLimits:
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
    """Position on the effort ladder; a word we do not know ranks lowest, so that it never means *more*."""
    return _RANKS.get(effort.lower(), 0)
