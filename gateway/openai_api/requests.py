"""Parses OpenAI requests: the fields that the gateway reads, and the limits that the client sets. No I/O.

A request keeps its top-level fields as the bytes that the client sent, so fields that the gateway does not
read pass through unchanged.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from gateway.config.models import EFFORTS
from gateway.errors import InvalidRequest
from gateway.openai_api.lenient import malformed, read_leniently
from gateway.openai_api.messages import Medium, Message, media_of, text_of
from gateway.openai_api.stream_options import StreamOptions
from gateway.openai_api.wishes import ChatTemplate, Reasoning, Thinking, budgets, efforts, wishes_nothing

Fields = dict[str, Raw]
"""The top-level fields of a JSON object. Each value is the bytes that the client sent."""

_TRUE, _NULL = Raw(b"true"), Raw(b"null")


class _Common(Struct, kw_only=True):
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    best_of: int | None = None
    max_tokens: int | None = None
    thinking_token_budget: int | None = None
    metadata: dict[str, Any] | None = None


class ChatBody(_Common, kw_only=True):
    messages: list[Message]
    max_completion_tokens: int | None = None
    reasoning_effort: str | None = None
    reasoning: Reasoning | str | bool | None = None
    thinking: Thinking | str | bool | None = None
    enable_thinking: bool | None = None
    """The template's variable as a field, as Alibaba's API has it and clients of SGLang send it."""
    thinking_budget: int | None = None
    """Goes with `enable_thinking`."""
    chat_template_kwargs: ChatTemplate | None = None
    tools: list[Raw] | None = None


class CompletionBody(_Common, kw_only=True):
    prompt: str | list[str | int | list[int]] | None = None
    prompt_embeds: str | list[str] | None = None
    echo: bool | None = None


class EmbeddingBody(Struct):
    model: str | None = None
    messages: list[Message] | None = None


class ClientLimits(Struct, frozen=True):
    """The client's limits, in one form for all dialects of the API. Each is an upper bound."""

    effort: str | None = None
    """The highest reasoning effort, such as `low`."""
    thinking: int | None = None
    """The most reasoning tokens; 0 means no reasoning."""
    max_tokens: int | None = None
    """The most completion tokens, reasoning included."""
    min_tokens: int = 0
    """The fewest completion tokens, reasoning included. Unlike the others, it asks for more."""


class Request(Struct, frozen=True):
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
    fields, chat, read = _parse(_chat, body)
    if chat.max_tokens is not None and chat.max_completion_tokens is not None:
        del fields["max_tokens"]  # as vLLM does; another backend could obey the larger one
    if isinstance(chat.reasoning, Reasoning) and chat.reasoning.exclude:
        fields.setdefault("include_reasoning", Raw(b"false"))
    texts, asked, parts = [], None, False
    for message in chat.messages:
        content = message.content
        if isinstance(content, str):
            text = content
        else:
            text, parts = text_of(message), True
        texts.append(text)
        if message.role == "user":
            asked = text
    if asked is None:
        asked = texts[-1] if texts else ""
    options = chat.stream_options
    return Request(
        fields=fields,
        model=chat.model or "",
        stream=bool(chat.stream),
        client_limits=_client_limits(chat),
        prompt=asked,
        conversation="\n".join(texts)[-_SEARCHED:],
        metadata=chat.metadata,
        tools=bool(chat.tools),
        wants_usage=options is not None and bool(options.include_usage),
        wants_counts=options is not None and options.counts,
        choices=max(chat.n or 1, chat.best_of or 1, 1),
        media=media_of(chat.messages, read) if parts else (),
    )


def parse_completion(body: bytes) -> Request:
    """Parse a legacy completion request.

    Raises: InvalidJson, InvalidRequest.
    """
    fields, completion, _ = _parse(_completion, body)
    # With `echo` and 0, the backend scores the prompt.
    max_tokens = _length("max_tokens", completion.max_tokens, 0 if completion.echo else 1)
    prompt = completion.prompt
    embeds = _count(completion.prompt_embeds)
    prompts = _prompts(prompt, embeds)
    if isinstance(prompt, list):
        prompt = "\n".join(item for item in prompt if isinstance(item, str))
    budget = completion.thinking_token_budget
    return Request(
        fields=fields,
        model=completion.model or "",
        stream=bool(completion.stream),
        client_limits=ClientLimits(thinking=None if (budget or 0) < 0 else budget, max_tokens=max_tokens),
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
    fields, embedding, read = _parse(_embedding, body)
    media = media_of(embedding.messages or [], read)
    return Request(fields=fields, model=embedding.model or "", media=media)


T = TypeVar("T")
Body = TypeVar("Body", bound=Struct)


def decode_as(kind: type[Body], body: bytes) -> Body:
    """Parse the body of a request to the gateway's own API.

    Raises: InvalidJson, InvalidRequest.
    """
    decoder = msgspec.json.Decoder(kind)
    fields, _, _ = _parse(decoder, body)
    return _decode(decoder, encode(fields))  # once more, so that no unknown field is overlooked


def decode_exactly(kind: type[T], body: bytes) -> T:
    """Parse a body whose values must have the types of `kind`, such as a list.

    Raises: InvalidJson, InvalidRequest.
    """
    return _decode(msgspec.json.Decoder(kind), body)


def _parse(decoder: msgspec.json.Decoder[Body], body: bytes) -> tuple[Fields, Body, bytes]:
    """All fields, those that we read, and the JSON of the latter.

    Raises: InvalidJson, InvalidRequest.
    """
    try:
        return _fields.decode(body), decoder.decode(body), body
    except msgspec.ValidationError:
        lenient = read_leniently(_decode(_fields, body), decoder.type)
        read = encode(lenient.read)
        return lenient.sent, _decode(decoder, read), read
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(error) from None


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        param = path.rstrip("`").removeprefix("$").removeprefix(".") or None
        if param is None and (missing := re.search(r"missing required field `(\w+)`", message)):
            param = missing[1]
        raise InvalidRequest(f"{message}{f' at {param}' if path else ''}", param=param) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(error) from None


def _client_limits(chat: ChatBody) -> ClientLimits:
    """The lowest effort and the lowest budget of all that the request states."""
    if chat.max_completion_tokens is None:
        max_tokens = _length("max_tokens", chat.max_tokens, 1)
    else:
        max_tokens = _length("max_completion_tokens", chat.max_completion_tokens, 1)
    if wishes_nothing(chat):
        return ClientLimits(max_tokens=max_tokens)
    stated = efforts(chat)
    return ClientLimits(
        effort=min(stated, key=effort_rank) if stated else None,
        thinking=min(budgets(chat), default=None),
        max_tokens=max_tokens,
    )


def _length(name: str, tokens: int | None, least: int) -> int | None:
    """The most completion tokens, checked. Raises: InvalidRequest."""
    if tokens is not None and tokens < least:
        raise InvalidRequest(f"{name} must be at least {least}, not {tokens}", param=name)
    return tokens


_RANKS = {effort: rank for rank, effort in enumerate(EFFORTS)}


def effort_rank(effort: str) -> int:
    """The position of an effort, lowest first; an unknown word ranks lowest, so it never adds thinking."""
    return _RANKS.get(effort.lower(), 0)
