"""Reads from a backend's error what it refuses of a request: fields, or a length. No I/O.

Backends word the same refusal in many ways. `tests/openai_api/test_refusals.py` has those of vLLM, SGLang,
TGI, TensorRT-LLM, llama.cpp and OpenAI.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

_READ = 4_000
"""Characters of an error that are read. What follows in a longer one quotes the request."""
_STATUSES = frozenset((400, 413, 415, 422, 500, 501))
_N = r"(\d[\d,]*)(?:\.0)?"


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


# The context, as in: This model's maximum context length is 32768 tokens.
_CONTEXT = _any_of(
    rf"maximum context length (?:is|of) {_N}",
    rf"context length is only {_N}",
    rf"max_(?:model_len|seq_len|num_tokens|total_tokens)\W{{0,4}}{_N}",
    rf"maximum sequence length\D{{0,4}}{_N}",
    rf"max_new_tokens\W{{0,3}} must be <= {_N}",
    rf"maximum model length of {_N}",
    rf"context (?:length|size|window|limit)\D{{0,24}}{_N}",
)

# The prompt, as in: your prompt contains at least 28673 input tokens
_PROMPT = _any_of(
    rf"{_N} (?:input|prompt) tokens",
    rf"{_N} tokens from the input messages",
    rf"{_N} in (?:the messages|your prompt|the prompt)",
    rf"given: {_N} \W?inputs\W? tokens",
    rf"prompt (?:size |length )?\(~?{_N}\)",
    rf"the input \({_N} tokens\)",
    rf"decoder prompt \(length {_N}\)",
)
_FUNCTIONS = _any_of(rf"{_N} in the functions")

# Only bounds of the prompt. vLLM stops tokenizing a prompt at the length that leaves no room.
_AT_LEAST = _any_of(rf"at least {_N} (?:input|prompt) tokens")
_TOO_MANY_CHARACTERS = _any_of(rf"upper bound for {_N} input tokens", rf"maximum input length of {_N} tokens")

# The longest completion, as in: This model supports at most 8192 completion tokens
_MOST = _any_of(
    rf"at most {_N} (?:completion|output|new) tokens",
    rf"> {_N}, which is the maximum",
    rf"max_\w*tokens\b[^.]{{0,80}}(?:<=|less than or equal to|at most|(?:can|must )not exceed)\W{{1,3}}{_N}",
    rf"range of max_\w*tokens (?:is|should be) \[\d+, ?{_N}\]",
    rf"maximum (?:output|completion|new) tokens \({_N}\)",
    rf"expected a value <= {_N}",
)

# The completion has a part in it: a prompt that is too long by itself leaves nothing to amend.
_OUTPUT = _any_of(
    r"(?:output|completion|new) tokens", r"max_\w*tokens", r"in the completion", r"for the completion"
)
_MIN_TOKENS = _any_of(r"min_tokens must be less than or equal to", r"min_tokens\W[^.]{0,60}max_\w*tokens")

# Where a validation error says which field is meant. Beside it, it repeats the whole request.
_PLACES = re.compile(r"['\"]loc['\"]: ?[\[(](.*?)[\])]")
_MESSAGES = re.compile(r"['\"]msg['\"]: ?(['\"])(.*?)\1, ?['\"]")

_SERVER_LACKS = _any_of(r"reasoning.(?:config|parser)")
_NEVER_TAKEN = _any_of(
    r"not permitted", r"extra.?fields?", r"extra_forbidden", r"unrecognized", r"unknown", r"unexpected",
    r"(?:not|un|isn't) ?support", r"invalid", r"not allowed", r"input should be", r"must be one of",
    r"supported values", r"not configured",
)  # fmt: skip
_BESIDE_ANOTHER = _any_of(r"\b(?:with|when|while|together|unless|combined?|combination|if|without)\b")

_CONFIGURES = {"reasoning_config": "thinking_token_budget", "reasoning_parser": "thinking_token_budget"}
"""Options of a backend that it names in place of the field that needs them."""


class Refusal(Struct, frozen=True):
    """Why a backend refused a request, as far as its error says."""

    names: frozenset[str] = frozenset()
    """Words that may be names of the fields that it refuses."""
    lasting: bool = False
    """It refuses these fields in every request, not only beside another field of this one."""
    too_long: bool = False
    """Prompt and completion do not fit the context, or the completion is longer than the backend allows."""
    context: int | None = None
    """Tokens of prompt and completion together."""
    prompt: int | None = None
    """Tokens of the prompt, or with `at_least` a lower bound."""
    at_least: bool = False
    most: int | None = None
    """The most completion tokens."""

    @property
    def room(self) -> int | None:
        """Completion tokens that the backend takes; None if the error does not tell."""
        if self.most is not None:
            return self.most
        return None if self.at_least else self.most_room

    @property
    def most_room(self) -> int | None:
        """A bound of the completion tokens that the context leaves; None if the error does not tell."""
        if self.context is None or self.prompt is None:
            return None
        return self.context - self.prompt

    def likely_room(self, size: int) -> int:
        """An estimate of `room` on the safe side; 0 if the prompt itself does not fit. `size` is in bytes.

        A token is about four bytes of text. If that is too many for the context, as of a body with an image,
        only the bound in the error is left.
        """
        most = (self.context or 0) - (self.prompt or 0)
        likely = (self.context or 0) - size // 4
        return max(min(most, likely) if likely > 0 else most, 0) // 2


def read_refusal(status: int, body: bytes) -> Refusal | None:
    """What a backend refuses with an error; None if the status says that the request is not at fault.

    Of an error of the server itself (5xx), only words with an underscore count as names of fields.
    """
    if status not in _STATUSES:
        return None
    text = body[:_READ].decode(errors="replace").replace("\\n", " ").replace("\\", "")
    if _MIN_TOKENS.search(text):
        return Refusal()  # of the client's own: a plan has no `min_tokens` above a limit of the gateway's
    if length := _length(text):
        return length
    places = _PLACES.findall(text)
    said = _about_fields(text, places)
    words = {word.replace("-", "_") for word in re.findall(r"[\w-]+", said)}
    if status >= 500:
        words = {word for word in words if "_" in word}
    words |= {name for option, name in _CONFIGURES.items() if option in words}
    lacks = _SERVER_LACKS.search(said)
    lasting = bool(lacks or ((places or _NEVER_TAKEN.search(said)) and not _BESIDE_ANOTHER.search(said)))
    return Refusal(frozenset(words), lasting)


def _length(text: str) -> Refusal | None:
    """The lengths that an error tells; None if it is not about lengths."""
    if not _OUTPUT.search(text):
        return None
    context, prompt, least, most = (
        _number(pattern, text) for pattern in (_CONTEXT, _PROMPT, _AT_LEAST, _MOST)
    )
    bound = _number(_TOO_MANY_CHARACTERS, text)
    if bound is not None and (prompt is None or prompt <= bound + 1):
        prompt = least = bound + 1
    if prompt is not None:
        prompt += _number(_FUNCTIONS, text) or 0
        most = None
    if context is None and most is None:
        return None
    return Refusal(too_long=True, context=context, prompt=prompt, at_least=least is not None, most=most)


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return next((int(group.replace(",", "")) for group in found.groups() if group), None) if found else None


def _about_fields(text: str, places: Sequence[str]) -> str:
    """The part of an error that names fields, without what it repeats of the request."""
    if not places:
        return text
    return " ".join([*places, *(message for _, message in _MESSAGES.findall(text))])
