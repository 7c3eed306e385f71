"""Requests to the server under test."""

from __future__ import annotations

from typing import Any

EASY = "What is 3+4?"
HARD = "Let f(x) = (3x + 4) mod 17. Apply f 9 times to 5."


def asking(text: str = HARD, **more: Any) -> dict[str, Any]:
    """A request with one user message. Fields that the client does not know go into the extra body."""
    extra = {
        key: more.pop(key)
        for key in ("thinking_token_budget", "chat_template_kwargs", "top_k")
        if key in more
    }
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], "extra_body": extra, **more}


DIRECT = {"chat_template_kwargs": {"enable_thinking": False}}
