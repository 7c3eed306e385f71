"""What a backend refuses is read from the words of every kind of backend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.openai_api.refusals import Refusal, read_refusal


def error(message: str, **fields: object) -> bytes:
    """An error body as vLLM sends it."""
    return json.dumps(
        {"error": {"message": message, "type": "BadRequestError", "code": 400} | fields}
    ).encode()


WORDINGS = yaml.safe_load((Path(__file__).parent / "refusals.yaml").read_text())
LENGTHS = {wording["name"]: (wording["message"], wording["room"]) for wording in WORDINGS["lengths"]}
BOUNDS = {wording["name"]: wording["message"] for wording in WORDINGS["bounds"]}
FITS = "This model's maximum context length is 32768 tokens. "


@pytest.mark.parametrize(("message", "room"), LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("status", [400, 422])
def test_room_is_context_less_prompt(message: str, room: int, status: int) -> None:
    """The room for the completion follows from the numbers in the message, whatever its words."""
    refusal = read_refusal(status, error(message))

    assert refusal is not None
    assert (refusal.too_long, refusal.room) == (True, room)


def test_shapes_of_errors() -> None:
    """The message is found in the shapes of TGI, FastAPI, llama.cpp and gateways that quote a backend."""
    message = LENGTHS["TGI"][0]
    shapes = [
        {"error": message, "error_type": "validation"},
        {"detail": message},
        {"object": "error", "message": message},
        {"error": {"code": 400, "message": message, "type": "invalid_request_error"}},
        {
            "error": {
                "message": "Provider returned error",
                "metadata": {"raw": json.dumps({"error": message})},
            }
        },
    ]
    for shape in shapes:
        refusal = read_refusal(400, json.dumps(shape).encode())
        assert refusal is not None
        assert refusal.room == 192


@pytest.mark.parametrize("message", BOUNDS.values(), ids=BOUNDS)
def test_bound_is_no_number(message: str) -> None:
    """A prompt that was not counted to its end gives a bound, and with its size an estimate that fits."""
    refusal = read_refusal(400, error(message))

    assert refusal is not None
    assert (refusal.context, refusal.prompt, refusal.room) == (32768, 24577, None)
    assert refusal.likely_room(120_000) == (32768 - 30_000) // 2
    assert refusal.likely_room(60_000) == refusal.likely_room(10_000_000) == (32768 - 24577) // 2


@pytest.mark.parametrize(
    "message",
    [
        FITS + "However, you requested 0 output tokens and your prompt contains at least 32769 input tokens.",
        FITS + "However, your prompt has the upper bound for 32768 input tokens and no output tokens.",
    ],
)
def test_prompt_that_does_not_fit_leaves_nothing(message: str) -> None:
    """No length makes room for a prompt that is too long by itself."""
    refusal = read_refusal(400, error(message))

    assert refusal is not None
    assert refusal.likely_room(10) == 0


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 9 tokens.",
        "The input (8391 tokens) is longer than the model's context length (8192 tokens).",
        "request (100500 tokens) exceeds the available context size (4096 tokens), try increasing it",
        "max_tokens must be at least 1, got -123.",
        "n must be at least 1, got 0.",
    ],
)
def test_errors_about_the_prompt_are_not_about_the_length(message: str) -> None:
    """A refusal in which the completion plays no part says nothing about it."""
    refusal = read_refusal(400, error(message))

    assert refusal is not None
    assert not refusal.too_long


@pytest.mark.parametrize(
    "message",
    [
        "min_tokens must be less than or equal to max_tokens=4096, got 6000.",
        "min_tokens (6000) must not exceed max_new_tokens (4096).",
        "`min_tokens` is greater than `max_tokens`",
    ],
)
def test_minimum_above_the_limit(message: str) -> None:
    assert read_refusal(400, error(message)) == Refusal()


BUDGET = "thinking_token_budget is set but reasoning_config is not configured. Please set --reasoning-config"


def invalid(name: str, message: str, kind: str = "extra_forbidden") -> list[dict[str, object]]:
    """The details of pydantic's validation error, which repeats the request."""
    return [{"type": kind, "loc": ["body", name], "msg": message, "input": {"stream_options": {}}}]


def detail(*args: str) -> bytes:
    """FastAPI's error body."""
    return json.dumps({"detail": invalid(*args)}).encode()


LATER = "thinking_token_budget needs start and end strings, and reasoning parser 'x' defines none. Set both."
PRINTED = "1 validation error\nthinking_token_budget\n  Extra inputs are not permitted [type=extra_forbidden]"
EFFORT = invalid("reasoning_effort", "Input should be 'low' or 'high'", "literal_error")
TEMPLATE = "Unsupported reasoning_effort: 'max'. Supported values: high, low."
FIELDS = {
    "vLLM": (400, error(BUDGET), "thinking_token_budget", True),
    "vLLM, status 500": (500, error("ValueError: " + BUDGET, code=500), "thinking_token_budget", True),
    "vLLM, later": (400, error(LATER), "thinking_token_budget", True),
    "only the option": (400, error("reasoning-config is missing"), "thinking_token_budget", True),
    "FastAPI": (422, detail("thinking_token_budget", "no"), "thinking_token_budget", True),
    "vLLM, quoting": (400, error(str(EFFORT)), "reasoning_effort", True),
    "pydantic, printed": (400, error(PRINTED), "thinking_token_budget", True),
    "OpenAI": (400, error("Unrecognized request argument: include_reasoning"), "include_reasoning", True),
    "template": (400, error(TEMPLATE), "reasoning_effort", True),
    "param": (400, error("Unknown parameter", param="include_reasoning"), "include_reasoning", True),
    "beside another": (
        400,
        error("stream_options is not supported with beam search"),
        "stream_options",
        False,
    ),
}


@pytest.mark.parametrize(("status", "body", "name", "lasting"), FIELDS.values(), ids=FIELDS)
def test_names_of_fields(status: int, body: bytes, name: str, lasting: bool) -> None:
    """A refused field is found by its name, and whether the backend never takes it."""
    refusal = read_refusal(status, body)

    assert refusal is not None
    assert name in refusal.names
    assert refusal.lasting == lasting


def test_quoted_request_names_nothing() -> None:
    """A validation error repeats the request. Only its places and messages say what is wrong."""
    for body in (detail("messages", "Field required"), error(str(invalid("messages", "Field required")))):
        refusal = read_refusal(400, body)
        assert refusal is not None
        assert "messages" in refusal.names
        assert "stream_options" not in refusal.names


def test_words_of_a_server_error_are_no_fields() -> None:
    """`thinking` may be any word in an internal error; `thinking_token_budget` is the field."""
    refusal = read_refusal(500, error("stop thinking about thinking_token_budget"))

    assert refusal is not None
    assert "thinking_token_budget" in refusal.names
    assert "thinking" not in refusal.names


@pytest.mark.parametrize("status", [401, 403, 404, 429, 502, 503, 504])
def test_other_errors_refuse_nothing(status: int) -> None:
    """An overload or a missing route is no refusal of a field, whatever the text says."""
    assert read_refusal(status, error(BUDGET)) is None


@settings(max_examples=30)
@given(st.binary(max_size=300), st.sampled_from([400, 422, 500]))
def test_any_body_can_be_read(body: bytes, status: int) -> None:
    assert isinstance(read_refusal(status, body), Refusal)
