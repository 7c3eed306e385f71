"""What the headers say about a sender is worked out once per connection and configuration."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from gateway.config.loader import parse_file
from gateway.config.server import HttpLimits
from gateway.errors import InvalidApiKey
from gateway.http.framing import RequestHead
from gateway.http.head_reader import HeadReader
from gateway.snapshot import Snapshot

HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sk-a\r\nUser-Agent: me\r\n"
    b"X-Request-Id: theirs\r\nX-Session: s1\r\nX-Vllm-Priority: 1\r\nContent-Length: %d\r\n\r\n"
)


def snapshot(*keys: dict[str, Any], **more: Any) -> Snapshot:
    model = {"family": "qwen3", "replicas": [{"url": "http://a"}]}
    sections = {"models": {"tiny": model}, "keys": list(keys), "head": "baseline"} | more
    return Snapshot.build(*parse_file(yaml.safe_dump(sections).encode()))


def heads() -> tuple[RequestHead, RequestHead]:
    """Two heads of one connection that differ in the length alone."""
    reader = HeadReader(HttpLimits())
    first, second = reader.read(HEAD % 10), reader.read(HEAD % 200)
    assert first
    assert second
    return first[0], second[0]


def test_shared_by_heads_that_are_alike() -> None:
    """Later requests of a connection cost no second look-up of the key."""
    made, (first, second) = snapshot({"name": "a", "key": "sk-a"}, affinity_header="x-session"), heads()
    sender = made.sender(first)

    assert made.sender(second) is sender
    assert (sender.name, sender.affinity) == ("a", "s1")
    assert sender.passing == [(b"user-agent", b"me")]


def test_a_reload_asks_again() -> None:
    """A key that is taken away is refused on connections that have used it, and a new right holds on them."""
    first, second = heads()
    assert snapshot({"name": "a", "key": "sk-a"}).sender(first).name == "a"

    with pytest.raises(InvalidApiKey):
        snapshot({"name": "b", "key": "sk-b"}).sender(second)
    allowed = snapshot({"name": "c", "key": "sk-a", "scheduling": True}).sender(second)
    assert (allowed.name, (b"x-vllm-priority", b"1") in allowed.passing) == ("c", True)


def test_without_keys_or_affinity() -> None:
    """Nobody needs a name then."""
    sender = snapshot().sender(heads()[0])

    assert (sender.key, sender.name, sender.affinity) == (None, None, None)
