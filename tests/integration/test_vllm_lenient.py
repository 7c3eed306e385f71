"""Whatever vLLM's own request classes take is taken by the gateway, and read as the same values."""

import json
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

from msgspec import Raw

from gateway.errors import InvalidRequest
from gateway.openai_api.endpoints import CHAT, COMPLETIONS
from gateway.openai_api.requests import Request

NULL = Raw(b"null")
MESSAGES = [{"role": "user", "content": "What is 3+4?"}]
SCALARS = [
    *("null true false 0 1 2 3 -1 20 20.0 20.5 1e3 1e400 -0.0 100000000000000000000 NaN Infinity".split()),
    *('"" "0" "1" "20" "20.0" "+3" "1_0" "2e1" "x" "null"'.split()),
    '" 20 "',
    *('"true" "False" "on" "OFF" "yes" "n" [] [1] {} [[]] [null]'.split()),
]
FIELDS = [
    *("stream", "n", "best_of", "max_tokens", "max_completion_tokens", "echo", "model", "stream_options"),
    *("metadata", "reasoning", "thinking", "thinking_token_budget", "enable_thinking", "thinking_budget"),
    *("reasoning_effort", "chat_template_kwargs", "tools", "functions", "user", "include_reasoning"),
    *("prompt", "prompt_embeds", "messages"),
]
OBJECTS = [
    {"stream": True, "stream_options": {"include_usage": "true", "continuous_usage_stats": 1}},
    {"stream": "yes", "stream_options": {}},
    {"stream": True, "stream_options": {"include_usage": None, "x": [1]}},
    {"max_tokens": 0, "max_completion_tokens": 5},
    {"max_tokens": "-1", "max_completion_tokens": "5"},
    {"max_tokens": 0, "echo": True},
    {"max_tokens": "0", "echo": "1"},
    {"max_tokens": 0.0, "echo": 1, "logprobs": 1},
    {"reasoning": {"effort": 5, "max_tokens": "x", "enabled": "maybe"}},
    {"thinking": {"type": "auto"}},
    {"thinking": {"type": "enabled", "budget_tokens": "1024"}},
    {"thinking": {"type": None, "budget_tokens": -1}},
    {"chat_template_kwargs": {"enable_thinking": "maybe", "thinking_budget": []}},
    {"metadata": {"a": {"b": [1]}}},
    {"metadata": "x"},
    {"temperature": "0.7", "top_p": "1", "seed": "7"},
    *({"reasoning_effort": word} for word in ("none", "minimal", "low", "high", "xhigh", "max", "auto")),
]
TEXT = {"type": "text", "text": "hi"}
CONTENTS: list[Any] = [
    *(None, "", 5, True, {}, [], TEXT, [5], [None], ["a", "b"], [[]], [{}], [TEXT, "b"]),
    *([{"text": "hi"}], [{"type": "text"}], [{"type": "text", "text": None}], [{"type": "text", "text": 5}]),
    *([{"type": "thinking", "thinking": "x"}], [{"type": "other", "x": 1}], [{"type": 5, "text": "x"}]),
    *([{"image_url": "http://x/y.png"}], [{"image_url": {"url": "http://x/y.png"}}], [{"type": "image_url"}]),
    *(
        [{"type": "input_text", "text": "x"}],
        [{"type": "refusal", "refusal": "no"}],
        [{"type": "file", "file": {}}],
    ),
]
ROLES: list[Any] = ["user", "system", "assistant", "tool", "developer", "function", "other", "", None, 5]
PROMPTS: list[Any] = [
    *("", "a", ["a", "b"], [1, 2], [[1], [2, 3]], [1.0, 2.0], ["1", 2], [["1"], [2.0]], [True, False]),
    *([None], ["a", None], [[]], [], [[], []], 5, {}, {"a": 1}, None),
]


def bodies() -> list[tuple[bool, str]]:
    chat, completion = {"model": "tiny", "messages": MESSAGES}, {"model": "tiny", "prompt": "What is 3+4?"}
    made = [
        (base is chat, _with(base, name, value))
        for base, name, value in product((chat, completion), FIELDS, SCALARS)
    ]
    for fields in OBJECTS:
        made += [(True, json.dumps(chat | fields)), (False, json.dumps(completion | fields))]
    messages = [{"role": role, "content": content} for role, content in product(ROLES, CONTENTS)]
    messages += [{"content": "x"}, {"role": "user"}, {"role": "assistant", "tool_calls": []}, {}]
    made += [(True, json.dumps(chat | {"messages": [message]})) for message in messages]
    made += [(False, json.dumps(completion | {"prompt": prompt})) for prompt in PROMPTS]
    made += [(True, json.dumps({"messages": MESSAGES})), (False, json.dumps({"prompt": "x"}))]
    return made + [(True, json.dumps(chat)[:-1] + end) for end in (',"n":1,"n":3}', ',"n":3,"\\u006e":1}')]


def _with(base: dict[str, Any], name: str, value: str) -> str:
    fields = {key: json.dumps(known) for key, known in base.items()} | {name: value}
    return "{" + ", ".join(f'"{key}": {text}' for key, text in fields.items()) + "}"


def parsed(chat: bool, body: str) -> Request | None:
    try:
        return (CHAT if chat else COMPLETIONS).parse(body.encode())
    except InvalidRequest:
        return None


def test_what_vllm_takes_is_taken(vllm_python: Path, tmp_path: Path) -> None:
    """Every value that vLLM takes is taken, as the same stream, length and number of choices."""
    asked, said = bodies(), tmp_path / "said.json"
    script = Path(__file__).with_name("lenient_oracle.py")
    subprocess.run([vllm_python, script, said], input=json.dumps(asked), text=True, check=True, cwd=tmp_path)
    answers = json.loads(said.read_text())
    refused, other = [], []
    for (chat, body), theirs in zip(asked, answers, strict=True):
        ours = parsed(chat, body)
        if theirs is None or "NaN" in body:  # no JSON parser but Python's reads NaN
            continue
        if ours is None:
            refused.append(body)
        elif _differs(ours, theirs):
            other.append((body, theirs, ours))

    assert len([theirs for theirs in answers if theirs]) > 400
    assert refused == []
    assert other == []


def _differs(ours: Request, theirs: dict[str, Any]) -> bool:
    """Whether we read another stream, length or number of choices than vLLM."""
    limit = theirs.get("max_completion_tokens")
    limit = theirs["max_tokens"] if limit is None else limit
    if "max_completion_tokens" not in theirs and ours.fields.get("max_tokens", NULL) == NULL:
        limit = None  # a legacy completion without a length: the gateway adds the API's own later
    choices = (theirs["n"] or 1) * ours.prompts
    return (ours.stream, ours.client_limits.max_tokens) != (bool(theirs["stream"]), limit) or (
        "best_of" not in ours.fields and ours.choices != choices
    )
