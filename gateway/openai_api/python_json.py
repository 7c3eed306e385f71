"""Rewrites JSON that Python's parser takes, and so vLLM, as JSON by the standard. No I/O."""

from __future__ import annotations

import json
import re

_INFINITY = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|Infinity', re.DOTALL)


def as_standard_json(body: bytes) -> bytes:
    """The body in UTF-8 without a byte order mark, with numbers that are too large in place of `Infinity`.

    Windows' tools write the mark, and Python's clients send `-Infinity` as a bias of a token. The body itself
    if there is nothing to rewrite.
    """
    encoding = json.detect_encoding(body)
    if encoding != "utf-8":
        try:
            body = body.decode(encoding).encode()
        except UnicodeError:
            return body
    if b"Infinity" not in body:
        return body
    return _INFINITY.sub(lambda found: b"1e999" if found[0] == b"Infinity" else found[0], body)
