"""Recognises a thought that a backend sent as an answer, because its reasoning parser is missing or wrong."""

from __future__ import annotations

import re

LOOK = 64
"""Characters at the start of an answer that show whether it opens a thought."""

# How the families write a thought, as vLLM's reasoning parsers know it: each group names its models.
_OPENING = re.compile(
    r"""\s*(
        <think(?::[\w.-]{1,24})?>         # DeepSeek, Qwen3, GLM, Nemotron, Hunyuan, ERNIE, Step, Olmo
      | <(?:seed|mm):think>                       # Seed-OSS, MiniMax M3
      | <thought>                                 # EXAONE, Gemma
      | \[THINK\]                                 # Magistral
      | ◁think▷                                   # Kimi-VL
      | <\|open\|>\s?think\s?<\|sep\|>            # Kimi K3
      | <\|channel\|>\s?analysis                  # gpt-oss
      | <\|channel>\s?thought                     # Gemma 4
      | <\|(?:START_THINKING|begin_of_thought|inner_prefix|content_thinking|plamo:begin_think:plamo)\|>
      | <ifm\|think(?:_fast|_faster)?>            # K2 Horizon
      | to=self<\|message\|>                      # Muse Glimmer
      | Here(?:'s|\ is)\ my\ thought\ process:    # Granite
    )""",
    re.VERBOSE,
)

_FIRST_CHARACTERS = frozenset("<[◁atH")  # of these marks

# gpt-oss when special tokens are not written: "analysisThe user asks…assistantfinal42"
_BARE_CHANNEL = re.compile(r"\s*(analysis)(?=[A-Z])")

# A thought that the chat template opened has only its end in the answer. It stands alone in its line or ends
# one. In prose that speaks of it, it stands in quotes or goes on in the line.
_CLOSING = re.compile(
    r"""(?<!["'`])(
        </think(?::[\w.-]{1,24})?> | </(?:seed|mm):think> | </thought> | \[/THINK\] | ◁/think▷
      | <\|close\|>\s?think\s?<\|sep\|> | <channel\|> | <\|END_THINKING\|> | </ifm\|think(?:_fast|_faster)?>
      | <\|channel\|>\s?final(?:<\|message\|>)? | assistantfinal(?=\S)
    )(?=\s*\n|\s*\Z|[^\s"'`.,;:)])""",
    re.VERBOSE,
)


# What is in the closing marks of thoughts that chat templates open. In an ordinary answer, one search for a
# character shows that there is none.
_IN_CLOSING = (
    "/think",
    ":think>",
    "</thought>",
    "channel|>",
    "THINKING|>",
    "/ifm|",
    "|close|>",
    "channel|>final",
)

# Granite closes its thought with words, which mean nothing without the ones that open it.
_ANSWER = re.compile(r"Here(?:'s| is) my response:")


def lost_marks(text: str) -> str | None:
    """The mark that shows that an answer holds its thought; None if it has none.

    An answer that opens a thought, such as `<think>`, counts, and so does one that closes a thought that its
    chat template opened. An answer that only speaks of such a mark does not count.
    """
    first = text[:1]
    if not (first in _FIRST_CHARACTERS or first.isspace() or "<" in text or "◁" in text):
        return None  # the usual case, found in one step
    if found := opening_mark(text):
        return found
    closing = closing_mark(text)
    return closing[1] if closing else None


def opening_mark(text: str) -> str | None:
    """The mark with which an answer opens a thought; its first `LOOK` characters are enough."""
    start = text[:LOOK].lstrip()
    if start[:1] not in _FIRST_CHARACTERS:
        return None
    found = _OPENING.match(start) or _BARE_CHANNEL.match(start)
    return found[1] if found else None


def closing_mark(text: str, *, opened: bool = False) -> re.Match[str] | None:
    """Where a text closes a thought. opened: it is known to begin inside one."""
    if opened:
        return _CLOSING.search(text) or _ANSWER.search(text)
    if ("<" not in text and "◁" not in text) or not any(part in text for part in _IN_CLOSING):
        return None
    closing = _CLOSING.search(text)
    if closing and "/" in closing[1] and closing[1].replace("/", "", 1) in text[: closing.start()]:
        return None
    return closing


def thought_length(text: str) -> int:
    """Characters of the thought that an answer holds; 0 if it holds none."""
    opened = opening_mark(text) is not None
    closing = closing_mark(text, opened=opened)
    return closing.end() if closing else len(text) if opened else 0
