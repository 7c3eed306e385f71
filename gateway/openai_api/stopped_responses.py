"""Ends the choices of a whole response at the client's stop strings. No I/O."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from gateway.openai_api.counts import count_of
from gateway.openai_api.requests import encode
from gateway.openai_api.responses import read_usage
from gateway.openai_api.stop_strings import StopSearch, StopStrings
from gateway.openai_api.stopped_choices import (
    ChoiceFields,
    content_of,
    cut_tokens,
    ended,
    has_reasoning,
    member_of,
    reasoning_of,
    with_content,
    without_calls,
)
from gateway.openai_api.usage import TokenUsage, reported_usage

LONGEST_CUT = 1 << 22
"""Bytes; a longer response passes as it is, because it is never held whole."""
_END_THINK = "</think>"

_response = msgspec.json.Decoder(dict[str, Raw])
_choices = msgspec.json.Decoder(list[ChoiceFields])


def read_stopped(body: bytes, stops: StopStrings | None) -> tuple[TokenUsage | None, bytes]:
    """The token usage of a whole response, and the response as the client gets it.

    The usage is that of the whole answer, which the backend has generated. It is None if the body is not a
    response.
    """
    usage = read_usage(body)
    if usage is None or stops is None:
        return usage, body
    cut = cut_response(body, stops)
    if cut is not body:
        usage.finish_reason = "stop"
    return usage, cut


def cut_response(body: bytes, stops: StopStrings) -> bytes:
    """The response with each answer cut at its first stop string, or the same bytes if there is none."""
    try:
        response = _response.decode(body)
        choices = _choices.decode(response["choices"])
        share = _exempt_share(response, len(choices), stops.min_tokens)
        cut = [_cut(choice, stops, share) for choice in choices]
    except (KeyError, TypeError, msgspec.DecodeError, UnicodeError, RecursionError):
        return body
    return body if cut == choices else encode(response | {"choices": Raw(encode(cut))})


def _cut(choice: ChoiceFields, stops: StopStrings, share: float) -> ChoiceFields:
    """One choice. share: the part of its text, thought included, in which no string may end."""
    message = member_of(choice, "message")
    content, parsed = content_of(message), has_reasoning(message)
    # A backend without a reasoning parser sends the thought in the answer. The prompt may hold its first tag.
    thought, tag, answer = ("", "", content) if parsed else content.partition(_END_THINK)
    if not tag:
        thought, answer = "", content
    search = StopSearch(stops, parsed=parsed or bool(tag))
    reasoning = len(reasoning_of(message))
    exempt = max(0, round(share * (reasoning + len(content))) - reasoning - len(thought + tag))
    shown = search.feed(answer[:exempt], counts=False) + search.feed(answer[exempt:], last=True)
    if search.found is None:
        return choice
    choice = cut_tokens(choice, content, len(content) - search.dropped)
    choice = with_content(choice, "message", without_calls(message), thought + tag + shown)
    return ended(choice, "stop", search.found)


def _exempt_share(response: ChoiceFields, choices: int, min_tokens: int) -> float:
    """The part of each text, by length, that `min_tokens` tokens make up."""
    if not min_tokens:
        return 0
    usage, exempt = reported_usage(response.get("usage")), min_tokens * choices
    return min(1.0, exempt / ((usage and count_of(usage.completion_tokens)) or exempt or 1))
