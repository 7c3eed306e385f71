"""Which fields of a request let the client decide the length of the answer, or silence its count. No I/O.

Also `min_tokens`, by which the client asks for a length.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from gateway.openai_api.lenient import whole_number
from gateway.openai_api.requests import Fields
from gateway.openai_api.wishes import ChatTemplate

_HARMLESS = frozenset({
    *("model", "messages", "prompt", "stream", "stream_options", "max_tokens", "max_completion_tokens"),
    *("reasoning", "reasoning_effort", "thinking", "thinking_token_budget", "include_reasoning"),
    *("enable_thinking", "thinking_budget"),
    *("seed", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
    *("tools", "functions", "parallel_tool_calls", "logprobs", "top_logprobs", "top_p", "top_k", "min_p"),
    *("stop", "cache_salt", "verbosity", "stream_interval"),
})  # fmt: skip
"""Fields that leave the length to the model, with any value."""

_RANGES = {"temperature": (0, 1.2), "presence_penalty": (0, 0.5), "frequency_penalty": (0, 0.5)} | {
    "repetition_penalty": (1, 1.2), "n": (1, 1), "best_of": (1, 1)
}  # fmt: skip
"""Values between which a field leaves the length to the model."""

_WORDS = {"tool_choice": ("auto", "none"), "function_call": ("auto", "none")}
"""Values of a field that leave the length to the model."""

_TOOLS = ("tools", "functions")
_TEMPLATE = frozenset(ChatTemplate.__struct_fields__)

_COUNTED = _HARMLESS | _RANGES.keys() | _WORDS.keys() | {
    *("min_tokens", "ignore_eos", "stop_token_ids", "include_stop_str_in_output", "length_penalty"),
    *("logit_bias", "bad_words", "allowed_token_ids", "skip_special_tokens", "spaces_between_special_tokens"),
    *("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice"),
    *("guided_grammar", "guided_decoding_backend", "guided_whitespace_pattern", "structural_tag"),
    *("chat_template", "chat_template_kwargs", "add_generation_prompt", "continue_final_message"),
    *("add_special_tokens", "documents", "mm_processor_kwargs", "media_io_kwargs", "mm_payload", "echo"),
    *("truncate_prompt_tokens", "truncation_side", "prompt_logprobs", "prompt_embeds", "suffix", "priority"),
    *("request_id", "session_id", "return_token_ids", "return_tokens_as_token_ids", "logprob_token_ids"),
    *("vllm_xargs", "watermarking", "repetition_detection", "use_beam_search"),
    *("modalities", "prediction", "web_search_options", "top_a", "typical_p"),
}  # fmt: skip
"""Fields that a backend obeys, or ignores, without keeping its count of tokens to itself."""

_NULL = Raw(b"null")
_BYTES_PER_CHARACTER = 4


def model_decides(fields: Fields) -> bool:
    """Whether nothing but the model decides when the answer ends, so that statistics hold for its length.

    Fields that are not known to be harmless count against it.
    """
    return all(_leaves(name, value) for name, value in fields.items())


def _leaves(name: str, value: Raw) -> bool:
    """Whether a field leaves the length of the answer to the model."""
    if name in _HARMLESS or value == _NULL:
        return True
    if name in _RANGES:
        low, high = _RANGES[name]
        number = _value(value)
        return isinstance(number, int | float) and low <= number <= high
    if name in _WORDS:
        return _value(value) in _WORDS[name]
    if name == "response_format":
        kind = _value(value)
        return isinstance(kind, dict) and kind.get("type") == "text"
    if name == "chat_template_kwargs":
        names = _value(value)
        return isinstance(names, dict) and names.keys() <= _TEMPLATE
    return False


def silences(fields: Fields) -> bool:
    """Whether a backend may generate the whole answer before it says how many tokens it has.

    So do beam search, candidates that compete, and fields that are not known.
    """
    return not fields.keys() <= _COUNTED or begins_late(fields)


def begins_late(fields: Fields) -> bool:
    """Whether a backend sends nothing before the whole answer is generated: beam search, best of several."""
    if _LATE.isdisjoint(fields):
        return False
    beams = _value(fields.get("use_beam_search"))
    return beams not in (None, False) or not _leaves("best_of", fields.get("best_of", _NULL))


_HOLDING = frozenset({
    *("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"),
    *("structural_tag", "stream_interval", "stream_reasoning"),
})  # fmt: skip
"""Fields with which a backend may hold its answer back."""
_LATE = frozenset(("use_beam_search", "best_of"))
_MAY_HOLD = _HOLDING | _LATE | {"include_reasoning", "response_format", "n", *_TOOLS}


def may_hold_back(fields: Fields) -> bool:
    """Whether a working backend may send nothing for minutes, whatever it has sent before.

    So it is when reasoning is hidden, when a tool call or structured output is held back until it is whole,
    and when choices wait for each other.
    """
    if _MAY_HOLD.isdisjoint(fields):
        return False
    hidden = fields.get("include_reasoning", _NULL) not in (_NULL, Raw(b"true"))
    several = not _leaves("n", fields.get("n", _NULL))
    structured = not _leaves("response_format", fields.get("response_format", _NULL))
    holding = any(fields[name] != _NULL for name in fields.keys() & _HOLDING)
    return hidden or _may_call(fields) or several or structured or holding or begins_late(fields)


def may_pause(fields: Fields) -> bool:
    """Whether tokens may pass unseen for a while, as in a tool call that a parser has not read to its end.

    So may the marks that a model writes when the client has it go on after its end: they have no text.
    """
    return _may_call(fields) or not model_decides(fields)


def _may_call(fields: Fields) -> bool:
    """Whether the answer may have a tool call."""
    return not fields.keys().isdisjoint(_TOOLS) and _value(fields.get("tool_choice")) != "none"


def held_back(fields: Fields) -> int:
    """The most tokens that a backend generates unseen, because their text may begin a `stop` string.

    It holds back as many characters as the longest of them has, and a token is at least a byte of one.
    """
    stop = _value(fields.get("stop"))
    words = stop if isinstance(stop, list) else [stop]
    return _BYTES_PER_CHARACTER * max((len(word) for word in words if isinstance(word, str)), default=0)


def least_tokens(fields: Fields, max_tokens: int | None) -> int:
    """The client's `min_tokens`; 0 without one, or if it contradicts the client's own `max_tokens`.

    A backend refuses such a contradiction, so it is left for the backend to explain.
    """
    least = whole_number(_value(fields.get("min_tokens"))) or 0
    return 0 if max_tokens is not None and least > max_tokens else max(least, 0)


def within_cap(fields: Fields, cap: int, max_tokens: int | None) -> Fields:
    """The fields with `min_tokens` lowered to a cap that is not the client's own.

    max_tokens: the client's own. A backend refuses a `min_tokens` above the cap.
    """
    if least_tokens(fields, max_tokens) <= cap:
        return fields
    return fields | {"min_tokens": Raw(b"%d" % cap)}


def _value(raw: Raw | None) -> Any:
    """The value of a field; None if it is absent or cannot be read."""
    try:
        return None if raw is None else msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
