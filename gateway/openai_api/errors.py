"""Reads error bodies of backends."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from gateway.openai_api.counts import count_of

_LONGEST_TEXT = 1_000  # bytes
_NO_TEXT = frozenset('<{["')
_MOST_FAULTS = 5
"""Fields that a message names. FastAPI may find thousands of faults."""


class ErrorObject(Struct):
    """A backend's error, as far as it can be read."""

    message: str = ""
    param: str | None = None
    code: int | str | None = None
    type: Any = None
    http_status_code: int | None = None

    @property
    def status(self) -> int | None:
        """The HTTP status, which vLLM repeats as the code, and LiteLLM as a text; None if it is not told."""
        return count_of(self.code)


def read_error(body: bytes) -> ErrorObject:
    """Read an error body, such as `{"error":{"message":…}}`; the message is empty if there is none.

    A field of an unexpected type costs only that field. A plain text is a message, a page is none.
    """
    try:
        return _read(msgspec.json.decode(body, type=dict[str, Any]))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ErrorObject(_plain(body))


def _read(outer: dict[str, Any]) -> ErrorObject:
    error = outer.get("error", outer)
    if not isinstance(error, dict):
        return ErrorObject(str(error or outer.get("message") or ""))
    message, param, code = error.get("message"), error.get("param"), error.get("code")
    if not message or not isinstance(message, str):
        return _detail(outer.get("detail"))
    if isinstance(code, float) and code.is_integer():
        code = int(code)
    return ErrorObject(
        message,
        param if isinstance(param, str) else None,
        code if isinstance(code, int | str) else None,
        error.get("type"),
        stated if isinstance(stated := error.get("http_status_code"), int) else None,
    )


def _detail(detail: object) -> ErrorObject:
    """FastAPI's form: a text, or the faults of fields, `[{"loc":["body","n"],"msg":"Input should be …"}]`."""
    if isinstance(detail, dict):
        return _read(detail)
    faults = [fault for fault in detail if isinstance(fault, dict)] if isinstance(detail, list) else []
    if not faults:
        return ErrorObject(str(detail or ""))
    told = [(_path(fault.get("loc")), fault.get("msg", "")) for fault in faults[:_MOST_FAULTS]]
    texts = [f"{path}: {text}" if path else str(text) for path, text in told]
    return ErrorObject("; ".join(texts), param=told[0][0] or None)


def _plain(body: bytes) -> str:
    """A short text that is no page and no broken JSON."""
    text = body[:_LONGEST_TEXT].decode(errors="replace").strip()
    return "" if text[:1] in _NO_TEXT or not text.isprintable() or len(body) > _LONGEST_TEXT else text


def _path(loc: object) -> str:
    parts = [str(part) for part in loc] if isinstance(loc, list) else []
    return ".".join(parts[1:] if parts[:1] == ["body"] else parts)[:200]
