"""The context length of a model, from the model list of its backend."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.openai_api.model_cards import read_context

BASE = {"id": "base", "root": "org/base", "parent": None, "max_model_len": 4096}


def cards(*data: Any) -> bytes:
    return json.dumps({"object": "list", "data": data}).encode()


@pytest.mark.parametrize(
    ("body", "context"),
    [
        (cards({"id": "other", "max_model_len": 1}, {"id": "m", "max_model_len": 4096}), 4096),
        (cards({"id": "m"}), None),
        (cards({"id": "m"}, BASE), None),
        (cards(), None),
        (cards({"id": "m", "max_model_len": "4096"}), 4096),
        (cards({"id": "m", "max_model_len": 4096.0}), 4096),
        (cards({"id": "m", "max_model_len": "long"}), None),
        (cards({"id": "m", "max_model_len": True}), None),
        (cards({"id": "m", "max_model_len": 0}), None),
        (cards({"id": 5, "max_model_len": []}, {"id": "m", "max_model_len": 7}), 7),
        (b"not found", None),
        (b'{"data":{}}', None),
    ],
)
def test_context_of_a_model(body: bytes, context: int | None) -> None:
    """The context length of the named model, or None if the backend does not report one."""
    assert read_context(body, "m") == context


@pytest.mark.parametrize(
    ("data", "context"),
    [
        ([BASE, {"id": "m", "parent": "base"}], 4096),
        ([{"id": "m", "parent": "base", "max_model_len": None}, BASE], 4096),
        ([BASE, {"id": "m", "parent": "base", "max_model_len": 2048}], 2048),
        ([BASE, {"id": "m", "parent": "org/base"}], 4096),
        ([BASE, {"id": "m", "parent": "/models/elsewhere"}], 4096),
        ([BASE, {"id": "inner", "parent": "base"}, {"id": "m", "parent": "inner"}], 4096),
        ([{"id": "base"}, {"id": "m", "parent": "base"}], None),
        ([{"id": "m", "parent": "m"}], None),
        ([{"id": "a", "parent": "m"}, {"id": "m", "parent": "a"}], None),
        ([{"id": "m", "parent": 5}, BASE], 4096),
    ],
)
def test_context_of_an_adapter(data: list[Any], context: int | None) -> None:
    """An adapter whose card states no length has its parent's."""
    assert read_context(cards(*data), "m") == context
