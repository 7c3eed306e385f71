"""Reads error bodies and model lists of backends."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct


class ErrorObject(Struct):
    """A backend's error, as far as it can be read."""

    message: str = ""
    param: str | None = None
    code: int | str | None = None
    type: Any = None
    http_status_code: int | None = None

    @property
    def status(self) -> int | None:
        """The HTTP status, which vLLM repeats as the code."""
        return self.code if isinstance(self.code, int) else None


def read_error(body: bytes) -> ErrorObject:
    """Read an error body, such as `{"error":{"message":…}}`; the message is empty if there is none."""
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
    """The `max_model_len` of a model in a response of /v1/models; None if it has none."""
    try:
        cards = msgspec.json.decode(body, type=_ModelList).data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return next((card.max_model_len for card in cards if card.id == served_name), None)
