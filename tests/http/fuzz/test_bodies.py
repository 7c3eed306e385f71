"""Invalid bodies, chosen by hand and generated."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.http.fuzz.live import CHAT, FUZZ, GOOD, JSON, ROUTES, Live, assert_fair, encoded

HUGE = "9" * 400
BODIES: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \r\n\t ",
    "null": b"null",
    "array": b"[]",
    "string": b'"hello"',
    "number": b"42",
    "nothing": b"{}",
    "truncated": GOOD[:-10],
    "inside a string": GOOD[: GOOD.index(b"hello") + 2],
    "trailing comma": GOOD[:-1] + b",}",
    "two objects": GOOD + GOOD,
    "single quotes": GOOD.replace(b'"', b"'"),
    "NaN": GOOD[:-1] + b',"temperature":NaN}',
    "Infinity": GOOD[:-1] + b',"max_tokens":-Infinity}',
    "1e999": GOOD[:-1] + b',"max_tokens":1e999,"temperature":1e999}',
    "1e999 unread": GOOD[:-1] + b',"temperature":1e999}',
    "huge integer": GOOD[:-1] + b',"max_tokens":' + HUGE.encode() + b"}",
    "huge integer in metadata": GOOD[:-1] + b',"metadata":{"n":' + HUGE.encode() + b"}}",
    "huge number in metadata": GOOD[:-1] + b',"metadata":{"n":1e999}}',
    "100,000 brackets": b"[" * 100_000,
    "deep in a field": GOOD[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep in objects": GOOD[:-1] + b',"metadata":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "deep in content": b'{"model":"tiny","messages":[{"role":"user","content":' + b"[" * 100_000,
    "invalid UTF-8": GOOD.replace(b"hello", b"\xff\xfe\x80"),
    "invalid UTF-8 in a name": GOOD[:-1] + b',"\xc3\x28":1}',
    "UTF-16": GOOD.decode().encode("utf-16"),
    "BOM": b"\xef\xbb\xbf" + GOOD,
    "NUL bytes": GOOD.replace(b"hello", b"he\x00llo"),
    "only NUL": b"\x00" * 1000,
    "escaped NUL": GOOD.replace(b"hello", b"he\\u0000llo"),
    "lone surrogate": GOOD.replace(b"hello", b"\\ud800"),
    "lone surrogate as model": GOOD.replace(b"tiny", b"\\udfff"),
    "lone surrogate in a name": GOOD[:-1] + b',"\\ud800":1}',
    "lone surrogate in metadata": GOOD[:-1] + b',"metadata":{"a":"\\ud800"}}',
    "surrogate as UTF-8": GOOD.replace(b"hello", b"\xed\xa0\x80"),
    "bad escape": GOOD.replace(b"hello", b"\\x41"),
    "duplicate model": b'{"model":7,' + GOOD[1:],
    "duplicate messages": GOOD[:-1] + b',"messages":7}',
    "duplicate stream": GOOD[:-1] + b',"stream":false,"stream":false}',
    "duplicate template": GOOD[:-1] + b',"chat_template_kwargs":{},"chat_template_kwargs":7}',
    "10,000 messages": encoded({"messages": [{"role": "user", "content": "x"}] * 10_000}),
    "10,000 fields": encoded({f"field{i}": i for i in range(10_000)}),
    "1 MB of prompt": encoded({"messages": [{"role": "user", "content": "x" * 2**20}]}),
    "1 MB without a space or end": encoded({"messages": [{"role": "user", "content": "=" * 2**20}]}),
    "100 kB of model": encoded({"model": "m" * 100_000}),
    "100 kB of tier": encoded({"model": "tiny:" + "t" * 100_000}),
    "100 kB of effort": encoded({"reasoning_effort": "e" * 100_000}),
    "100 kB of type": encoded({"thinking": {"type": "t" * 100_000}}),
    "model with control characters": encoded({"model": "ti\r\nny\x1b[2J\u202e"}),
    "model with a colon": encoded({"model": "tiny:"}),
    "model of colons": encoded({"model": ":::"}),
    "empty model": encoded({"model": ""}),
}


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("name", BODIES)
def test_odd_body(live: Live, name: str, path: str) -> None:
    """A hand-made invalid body is served or refused."""
    assert_fair(live.post(path, BODIES[name]), BODIES[name])


@FUZZ
@given(path=st.sampled_from(ROUTES), body=JSON.map(lambda value: json.dumps(value).encode()) | st.binary())
def test_any_body(live: Live, path: str, body: bytes) -> None:
    """Any JSON value, and any bytes, are served or refused as a body."""
    assert_fair(live.post(path, body), body)


@FUZZ
@given(
    headers=st.dictionaries(
        st.sampled_from(["authorization", "x-api-key", "x-request-id", "traceparent", "accept", "x-other"]),
        st.binary(max_size=40).map(lambda value: value.decode("latin-1")),
    )
)
def test_any_header(live: Live, headers: dict[str, str]) -> None:
    """A request with any header value that HTTP allows is served or refused."""
    carried = {n: "".join(c for c in v if c not in "\r\n\0").strip() for n, v in headers.items()}
    answer = live.post(CHAT, GOOD, **carried)

    assert answer.status in (200, 400), answer
    assert answer.headers.get("x-request-id", "none").isprintable()
