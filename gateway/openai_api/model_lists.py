"""Reads which models a server lists at /v1/models."""

from __future__ import annotations

import msgspec
from msgspec import Struct


class _Listed(Struct):
    id: str


class _Models(Struct):
    data: list[_Listed]


def listed_models(body: bytes) -> list[str] | None:
    """The names of the models; None if the body is no list of models, such as a page."""
    try:
        return [model.id for model in msgspec.json.decode(body, type=_Models).data]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def lists(names: list[str], name: str) -> bool:
    """Whether a model is one of the names. Ollama lists `NAME:latest` and serves it as `NAME` too."""
    return name in names or f"{name}:latest" in names
