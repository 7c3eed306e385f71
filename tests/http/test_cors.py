"""Permissions of web pages, against Starlette's middleware."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from gateway.api.cors import CorsRule
from gateway.config.server import CorsSettings

PAGE, OTHER = "https://a.example", "https://b.example"
ASKED = "access-control-request-"
headers = st.fixed_dictionaries(
    {},
    optional={
        "origin": st.sampled_from([PAGE, OTHER, "null"]),
        f"{ASKED}method": st.sampled_from(["GET", "POST", "DELETE", "PATCH"]),
        f"{ASKED}headers": st.sampled_from(["", "authorization, x-a"]),
        f"{ASKED}private-network": st.just("true"),
    },
)


def starlettes(origins: list[str], method: str, sent: list[tuple[bytes, bytes]]) -> tuple[int, Any, bytes]:
    """Status, headers and body of a response behind Starlette's middleware."""
    app = CORSMiddleware(
        Response("served", 202),
        allow_origins=origins,
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["*"],
        expose_headers=["*"],
        max_age=60,
    )
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    running = app({"type": "http", "method": method, "headers": sent}, None, send)  # type: ignore[arg-type]
    with contextlib.suppress(StopIteration):
        running.send(None)  # type: ignore[attr-defined]
    start, body = messages
    return start["status"], start["headers"], body["body"]


@given(st.sampled_from([[PAGE], ["*"], [PAGE, OTHER]]), st.sampled_from(["GET", "POST", "OPTIONS"]), headers)
def test_same_as_starlette(origins: list[str], method: str, given_headers: dict[str, str]) -> None:
    """Every page gets the permissions that it got from the middleware, which only ASGI can use."""
    sent = [(name.encode(), value.encode()) for name, value in given_headers.items()]
    rule = CorsRule.of(CorsSettings(origins=origins, max_age=60))
    assert rule
    status, expected, body = starlettes(origins, method, sent)
    response = rule.preflight(method, dict(sent)) or (202, rule.grants(dict(sent)), b"served")

    plain = {b"content-length", b"content-type"}
    assert (response[0], response[2]) == (status, body)
    assert sorted(h for h in response[1] if h[0] not in plain) == sorted(
        h for h in expected if h[0] not in plain
    )
