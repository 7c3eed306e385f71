"""Runs in vLLM's environment: says what its own request classes make of request bodies.

Reads a JSON list of `[chat, body]` from standard input, where `chat` tells which endpoint the body is for.
Writes a JSON list to the file named on the command line: the values that vLLM would use, or null if it
refuses the body.
"""

import json
import sys
from pathlib import Path
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import (  # type: ignore[import-not-found]
    ChatCompletionRequest,
)
from vllm.entrypoints.openai.completion.protocol import CompletionRequest  # type: ignore[import-not-found]

READ = ("stream", "n", "max_tokens", "max_completion_tokens", "echo")


def taken(chat: bool, body: str) -> dict[str, Any] | None:
    try:
        request = (ChatCompletionRequest if chat else CompletionRequest).model_validate(json.loads(body))
        names = ("max_completion_tokens", "max_tokens") if chat else ("max_tokens",)
        limits = [getattr(request, name) for name in names]
        limit = next((tokens for tokens in limits if tokens is not None), 16)
        request.to_sampling_params(limit, {})
    except Exception:  # whatever it raises, the server answers with an error
        return None
    return {name: getattr(request, name) for name in READ if name in type(request).model_fields}


answers = [taken(chat, body) for chat, body in json.load(sys.stdin)]
Path(sys.argv[1]).write_text(json.dumps(answers))
