"""The spellings of a path that clients use, and what to say about one that does not exist. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

from gateway.errors import RouteNotFound

_DOUBLED = re.compile(r"/+v1/+")


_ESCAPABLE = (b"/v1/models/", b"/admin/budgets/")
"""Paths that end in a name. No other may have %-escapes, so that a balancer's rule for /metrics sees it."""


def sent_path(path: bytes) -> str:
    """The `plain_path` of a request line."""
    return plain_path(unquote(path.decode("ascii")))


def check_escapes(path: bytes) -> None:
    """Raises: RouteNotFound, if the path of a request line has %-escapes that it may not have."""
    if b"%" in path and not path.startswith(_ESCAPABLE):
        raise RouteNotFound("There is no route with %-escapes, except in names of models and budgets")


def plain_path(path: str) -> str:
    """The path without slashes at its end, or doubled around `/v1`, as base URLs that end in a slash cause.

    Other paths keep doubled slashes, and are not found: a balancer's rule for them may name one spelling.
    """
    if "//" in path and (doubled := _DOUBLED.match(path)):
        path = f"/v1/{path[doubled.end() :]}"
    return path.rstrip("/") or "/"


def no_route(path: str, known: Iterable[str]) -> str:
    """The message about a path that does not exist; `known` are the paths that clients use."""
    text, known = f"There is no route {path[:200]}", tuple(known)
    for meant in known:
        if meant == f"/v1{path}" or path.endswith(meant):
            base = " The client's base URL must end in /v1 once, right after the address"
            return f"{text}. Use {meant}.{base if meant.startswith('/v1') else ''}"
    return f"{text}. The gateway serves {', '.join(known)}, and what /docs lists"
