"""The special tokens of a conversation, its chat template, and the rendered text."""

from __future__ import annotations

from collections.abc import Iterable

START, END, THINK, UNTHINK, PAD = "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<|endoftext|>"
SPECIALS = (PAD, START, END)
NO_THOUGHT = f"{THINK}\n\n{UNTHINK}\n\n"
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}{{- part.text -}}{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}
{{- '<think>\\n\\n</think>\\n\\n' -}}
{%- endif -%}
{%- endif -%}
"""


def render_chat(messages: Iterable[tuple[str, str]], *, thinking: bool) -> str:
    """Render a conversation of (role, text) that the assistant continues."""
    turns = "".join(f"{START}{role}\n{text}{END}\n" for role, text in messages)
    opening = f"{turns}{START}assistant\n"
    return opening if thinking else opening + NO_THOUGHT


def render(question: str, *, thinking: bool) -> str:
    """Render one user message."""
    return render_chat([("user", question)], thinking=thinking)
