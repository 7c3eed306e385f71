"""The OpenAPI description of the hot routes, which FastAPI does not know because they bypass it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from gateway import __version__
from gateway.openai_api.endpoints import CHAT, COMPLETIONS, DETOKENIZE, EMBEDDINGS, TOKENIZE

_STRING = {"type": "string"}
_MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {"role": {"enum": ["system", "user", "assistant", "tool"]}, "content": _STRING},
}
_LENGTHS = {
    "stream": {"type": "boolean"},
    "max_tokens": {"type": "integer", "minimum": 1},
    "thinking_token_budget": {"type": "integer", "minimum": -1},
}
BODIES: dict[str, dict[str, Any]] = {
    CHAT.path: {
        "type": "object",
        "required": ["model", "messages"],
        "properties": {
            "model": _STRING,
            "messages": {"type": "array", "items": _MESSAGE, "minItems": 1},
            "reasoning_effort": _STRING,
            "max_completion_tokens": {"type": "integer", "minimum": 1},
            **_LENGTHS,
        },
    },
    COMPLETIONS.path: {
        "type": "object",
        "required": ["model", "prompt"],
        "properties": {"model": _STRING, "prompt": _STRING, **_LENGTHS},
    },
    EMBEDDINGS.path: {
        "type": "object",
        "required": ["model", "input"],
        "properties": {"model": _STRING, "input": _STRING},
    },
    TOKENIZE.path: {
        "type": "object",
        "required": ["model"],
        "properties": {"model": _STRING, "prompt": _STRING, "messages": {"type": "array", "items": _MESSAGE}},
    },
    DETOKENIZE.path: {
        "type": "object",
        "required": ["model", "tokens"],
        "properties": {"model": _STRING, "tokens": {"type": "array", "items": {"type": "integer"}}},
    },
}
_ITEM = {
    "type": "object",
    "properties": {
        "decision_id": _STRING | {"minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"},
        "request_id": _STRING | {"minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"},
        "correct": {"type": "boolean"},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "source": _STRING | {"minLength": 1, "maxLength": 64},
        "comment": _STRING | {"maxLength": 2_000},
        "replace": {"type": "boolean"},
    },
    "additionalProperties": False,
    "allOf": [
        {"oneOf": [{"required": ["decision_id"]}, {"required": ["request_id"]}]},
        {"oneOf": [{"required": ["correct"]}, {"required": ["score"]}]},
    ],
}
FEEDBACK: dict[str, Any] = {
    "oneOf": [_ITEM, {"type": "array", "items": _ITEM, "minItems": 1, "maxItems": 1_000}]
}
"""One item, or many. Each has `decision_id` or `request_id`, and `correct` or `score`."""


def request_body(path: str) -> dict[str, Any]:
    """Arguments for a FastAPI route that takes the same body as the hot route `path`."""
    return body_of(BODIES[path])


def body_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Arguments for a FastAPI route that takes a body of this schema."""
    content = {"application/json": {"schema": schema}}
    return {"openapi_extra": {"requestBody": {"required": True, "content": content}}}


def describe(app: FastAPI) -> dict[str, Any]:
    """FastAPI's own description, with the hot routes added."""
    schema = app.openapi()
    for path in BODIES:
        schema["paths"][path] = {
            "post": {
                "summary": "OpenAI-compatible; unknown fields pass through untouched",
                "tags": ["openai"],
                "responses": {"200": {"description": "The backend's response"}},
                **request_body(path)["openapi_extra"],
            }
        }
    schema["info"]["version"] = __version__
    return schema
