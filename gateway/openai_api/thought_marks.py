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

# gpt-oss when special tokens are not written: "analysisThe user asks…assistantfinal42"
_BARE_CHANNEL = re.compile(r"\s*(analysis)(?=[A-Z])")

# A thought that the chat template opened has only its end in the answer. It stands alone in its line or ends
# one. In prose that speaks of it, it stands in quotes or goes on in the line.
_CLOSING = re.compile(
    r"""(?<!["'`])(
        </think(?::[\w.-]{1,24})?> | </(?:seed|mm):think> | </thought> | \[/THINK\] | ◁/think▷
      | <\|close\|>\s?think\s?<\|sep\|> | <channel\|> | <\|END_THINKING\|> | </ifm\|think(?:_fast|_faster)?>
      | assistantfinal(?=\S)
    )(?=\s*\n|\s*\Z|[^\s"'`.,;:)])""",
    re.VERBOSE,
)


def lost_marks(text: str) -> str | None:
    """The mark that shows that an answer holds its thought; None if it has none.

    An answer that opens a thought, such as `<think>`, counts, and so does one that closes a thought that its
    chat template opened. An answer that only speaks of such a mark does not count.
    """
    if found := opening_mark(text):
        return found
    closing = _CLOSING.search(text)
    if closing is None:
        return None
    opened = "/" in closing[1] and closing[1].replace("/", "", 1) in text[: closing.start()]
    return None if opened else closing[1]


def opening_mark(text: str) -> str | None:
    """The mark with which an answer opens a thought; its first `LOOK` characters are enough."""
    found = _OPENING.match(text) or _BARE_CHANNEL.match(text)
    return found[1] if found else None
