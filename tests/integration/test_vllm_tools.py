"""Tools and schemas where the model thinks: no budget may end a thought inside a call's arguments."""

import json
from typing import Any

import pytest
from openai import OpenAI

from .test_vllm_chat import NAMED, NO_BLANKS, SUM, TOOL, YES_OR_NO

SCHEMA = {"type": "json_schema", "json_schema": {"name": "reply", "schema": YES_OR_NO}}


ASKED: dict[str, Any] = {"messages": SUM, "temperature": 0} | NO_BLANKS


@pytest.mark.parametrize("tier", ["direct", "short", "long"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_required_call(client: OpenAI, tier: str, stream: bool) -> None:
    """At every tier the arguments of a call are valid, streamed or not."""
    fields = ASKED | {"model": f"tools:{tier}", "tools": [TOOL], "tool_choice": NAMED}
    if not stream:
        message = client.chat.completions.create(**fields).choices[0].message
        assert message.tool_calls, message
        arguments = message.tool_calls[0].function.arguments
    else:
        with client.chat.completions.create(**fields, stream=True) as chunks:
            deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
        calls = [call for delta in deltas for call in delta.tool_calls or []]
        assert "weather" in {call.function.name for call in calls}
        arguments = "".join(call.function.arguments or "" for call in calls)
    assert json.loads(arguments)["yes"] in {True, False}


@pytest.mark.parametrize("tier", ["direct", "short", "long"])
def test_a_schema(client: OpenAI, tier: str) -> None:
    """At every tier the answer follows the schema."""
    answer = client.chat.completions.create(**ASKED, model=f"tools:{tier}", response_format=SCHEMA)
    assert json.loads(answer.choices[0].message.content or "")["yes"] in {True, False}
