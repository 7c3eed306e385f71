"""Reads error bodies of backends."""

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
