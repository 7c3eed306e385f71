"""While a thread parses a large body, it gives way to the event loop soon."""

from __future__ import annotations

import sys

import pytest

from gateway.http.exchange import Exchange
from gateway.openai_api.endpoints import CHAT, Endpoint
from gateway.openai_api.requests import Request
from gateway.pipeline.serve import read_request


class Arrived(Exchange):
    """An exchange whose body is here."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def whole_body(self) -> bytes:
        return self._body


async def test_only_while_parsing() -> None:
    """The usual interval is back when the body has been parsed, and when it cannot be."""
    usual, seen = sys.getswitchinterval(), []

    class Parses(Endpoint):
        def parse(self, body: bytes) -> Request:
            seen.append(sys.getswitchinterval())
            raise ValueError

    endpoint = Parses(CHAT.path, CHAT.parse_small, CHAT.body)
    for size in (10, 1 << 19):
        with pytest.raises(ValueError):
            await read_request(Arrived(b" " * size), endpoint)
        assert sys.getswitchinterval() == usual

    assert seen[0] == usual
    assert seen[1] < usual / 5
