"""Reads what backends send beside responses: error bodies and model cards."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct


class ErrorObject(Struct):
    """A backend's error, as far as it could be read."""

    message: str = ""
    param: str | None = None
    code: int | str | None = None

    @property
    def status(self) -> int | None:
        """vLLM repeats the HTTP status as the code."""
        return self.code if isinstance(self.code, int) else None


def read_error(body: bytes) -> ErrorObject:
    """A backend's error body, whatever its shape; an empty message if it has none."""
    try:
        outer = msgspec.json.decode(body, type=dict[str, Any])
        error = outer.get("error", outer)
        if not isinstance(error, dict):
            return ErrorObject(str(error or ""))
        inner = msgspec.convert(error, ErrorObject)
        return inner if inner.message else ErrorObject(str(outer.get("detail", "")))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ErrorObject()


class _ModelCard(Struct):
    id: str = ""
    max_model_len: int | None = None


class _ModelList(Struct):
    data: list[_ModelCard] = []


def read_context(body: bytes, served_name: str) -> int | None:
    """`max_model_len` of a model in a backend's /v1/models; None if it does not say."""
    try:
        cards = msgspec.json.decode(body, type=_ModelList).data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return next((card.max_model_len for card in cards if card.id == served_name), None)
