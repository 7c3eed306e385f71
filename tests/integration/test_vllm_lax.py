"""What vLLM takes passes, however it is written: "clients change nothing but the address"."""

import json
from typing import Any

import pytest

from .processes import Replica, Server, fetch_any

SUM = [{"role": "user", "content": "What is 9+3?"}]
BODY: dict[str, Any] = {"messages": SUM, "temperature": 0, "max_tokens": 12}
OFF = {"chat_template_kwargs": {"enable_thinking": False}}

WRITTEN: list[dict[str, Any]] = [
    {"max_tokens": 12.0},
    {"max_tokens": "12"},
    {"max_tokens": None},
    {"max_completion_tokens": 12.0},
    {"max_completion_tokens": "12"},
    {"n": "1"},
    {"n": 1.0},
    {"n": None},
    {"n": True},
    {"stream": 0},
    {"stream": "false"},
    {"stream": "off"},
    {"stream": 0.0},
    {"stream": None},
    {"stream": 1},
    {"stream": "true"},
    {"stream": "yes", "stream_options": {"include_usage": "true"}},
    {"stream": True, "stream_options": {"include_usage": 1}},
    {"stream": True, "stream_options": None},
    {"stream_options": None},
    {"temperature": "0"},
    {"top_p": "1"},
    {"seed": "7"},
    {"seed": 7.0},
    {"min_tokens": "3"},
    {"min_tokens": 3.0},
    {"stop": None},
    {"stop": ""},
    {"stop": []},
    {"logprobs": "true", "top_logprobs": "1"},
    {"reasoning_effort": None},
    {"include_reasoning": "false"},
    {"include_reasoning": 1},
    {"chat_template_kwargs": None},
    {"thinking": True},
    {"thinking": {"type": "auto"}},
    {"thinking": None},
    {"reasoning": "high"},
    {"reasoning": None},
    {"reasoning": {"effort": ""}},
    {"enable_thinking": True},
    {"enable_thinking": "false"},
    {"tools": []},
    {"tools": None},
    {"tool_choice": None},
    {"response_format": None},
    {"response_format": {"type": "text"}},
    {"user": None},
    {"metadata": None},
    {"priority": "0"},
    {"ignore_eos": "true"},
    {"echo": "false"},
    {"x_nobody_knows": {"a": [1]}},
]


@pytest.mark.parametrize("fields", WRITTEN, ids=json.dumps)
def test_chat(gateway: Server, replicas: list[Replica], fields: dict[str, Any]) -> None:
    """Where vLLM answers, it answers through the gateway."""
    status, theirs = fetch_any(
        f"{replicas[0].url}/v1/chat/completions", {"model": "tiny"} | BODY | OFF | fields
    )
    ours_status, ours = fetch_any(
        f"{gateway.url}/v1/chat/completions", {"model": "tiny:direct"} | BODY | fields
    )
    if status == 200:
        assert ours_status == 200, ours
        assert ours.startswith(b"data:") == theirs.startswith(b"data:"), "streamed or not, as without us"
    else:
        assert 400 <= ours_status < 500, ours


COMPLETIONS: list[dict[str, Any]] = [
    {"echo": True, "max_tokens": 0, "logprobs": 1},
    {"echo": True, "max_tokens": 0},
    {"echo": 1, "max_tokens": "0"},
    {},
    {"max_tokens": 0},
    {"max_tokens": None},
    {"max_tokens": "4"},
    {"max_tokens": 4.0, "n": "2", "seed": 1, "temperature": 1},
    {"stream": "true", "max_tokens": 3},
    {"logprobs": "1"},
    {"suffix": None},
    {"best_of": None},
]


@pytest.mark.parametrize("fields", COMPLETIONS, ids=json.dumps)
def test_completions(gateway: Server, replicas: list[Replica], fields: dict[str, Any]) -> None:
    """The same for legacy completions, among them the ones that only score a prompt."""
    body = {"model": "tiny", "prompt": "What is 3+4?", "temperature": 0} | fields
    status, theirs = fetch_any(f"{replicas[0].url}/v1/completions", body)
    ours_status, ours = fetch_any(f"{gateway.url}/v1/completions", body)
    # the oldest release fails by itself with `max_tokens: null`
    assert ours_status == (status if status < 500 else 502), ours
    if status == 200 and not theirs.startswith(b"data:"):
        texts = [[choice["text"] for choice in json.loads(raw)["choices"]] for raw in (ours, theirs)]
        assert texts[0] == texts[1]
