"""Large requests are read in slices, and decide like small ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from gateway.errors import GatewayError, InvalidJson, InvalidRequest
from gateway.openai_api import json_slices
from gateway.openai_api.endpoints import CHAT, COMPLETIONS, EMBEDDINGS
from gateway.openai_api.large_requests import LARGE_BODY

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('a"\\{[,:]}\n é😀', max_size=12),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.text('a"\\,', max_size=5), inner, max_size=6)
    ),
    max_leaves=30,
)
SIZES = st.integers(1, 20)


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The sizes of slices are set back after each test."""
    monkeypatch.setattr(json_slices, "SLICE", json_slices.SLICE)
    monkeypatch.setattr(json_slices, "_STRING_SLICE", json_slices._STRING_SLICE)
    yield


def slices_of(size: int) -> None:
    json_slices.SLICE, json_slices._STRING_SLICE = size, 12 + size


def valid(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=Raw)
    except msgspec.DecodeError:
        return False
    return True


@settings(max_examples=40)
@given(JSON, SIZES, st.booleans())
def test_valid_json_passes_in_slices_of_any_size(value: Any, size: int, spaced: bool) -> None:
    """No slice boundary, be it inside of an escape or a bracket, makes valid JSON invalid."""
    slices_of(size)
    text = json.dumps(value, ensure_ascii=size % 2 == 0, indent=1 if spaced else None).encode()

    json_slices.check_json(memoryview(text))
    json_slices.check_utf8(memoryview(text))


@settings(max_examples=40)
@given(JSON, SIZES, st.data())
def test_invalid_json_is_refused_in_slices_of_any_size(value: Any, size: int, data: st.DataObject) -> None:
    """With a byte removed, replaced or doubled, the text is valid in slices exactly if it is as a whole."""
    slices_of(size)
    text = json.dumps(value).encode()
    at = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(st.sampled_from([b"", text[at : at + 1] * 2, b",", b'"', b"]", b"}", b"\\", b":"]))
    text = text[:at] + put + text[at + 1 :]
    try:
        json_slices.check_json(memoryview(text))
    except InvalidJson:
        assert not valid(text)
    else:
        assert valid(text)


@settings(max_examples=40)
@given(st.lists(JSON, max_size=12), SIZES, st.integers(1, 4))
def test_ends_of_a_list(items: list[Any], size: int, most: int) -> None:
    """The first and the last elements are found, and all are counted."""
    slices_of(size)
    found, total = json_slices.both_ends(memoryview(json.dumps(items).encode()), most)

    expected = items if len(items) <= 2 * most else items[:most] + items[-most:]
    assert ([json.loads(bytes(item)) for item in found], total) == (expected, len(items))


TEXTS = [
    "a" * 400_000,
    "é" * 300_000,
    "😀" * 100_000,
    'say "hi" \\ \n' * 40_000,
    "\\" * 300_000,
    "a" * 131_060 + "😀" * 40_000,
]


@pytest.mark.parametrize("ascii_only", [True, False], ids=["escaped", "utf8"])
@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:6]))
def test_long_text_decides_like_the_whole(text: str, *, ascii_only: bool) -> None:
    """The head reads the first 20,000 characters or both ends, and rules the end: all are the same."""
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": text}]
    body = json.dumps({"model": "m", "messages": messages}, ensure_ascii=ascii_only).encode()

    large, whole = CHAT.parse(body), CHAT.parse_small(body)

    assert len(large.prompt) < 600_000
    assert large.prompt[:20_000] == whole.prompt[:20_000]
    if "\\" * 50 not in text:  # of a run of backslashes, the end cannot be told
        assert large.prompt[-20_000:] == whole.prompt[-20_000:]
        assert large.conversation == whole.conversation
    assert large.fields == whole.fields


LONG_FIELDS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": f"q{i}"} for i in range(30_000)]},
    {"messages": [{"role": "user", "content": "q"}, *[{"role": "tool", "content": "x" * 999}] * 800]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}, {"data": "A" * LARGE_BODY}]}]},
    {"messages": [{"role": "user", "content": "q"}], "tools": [{"type": "function"}] * 20_000},
    {"messages": [{"role": "user", "content": "q"}], "unread": {str(i): i for i in range(50_000)}},
    {"messages": [{"role": "user", "content": "q"}], "padding": "x" * LARGE_BODY, "stream": True, "n": 3},
    {"messages": [], "reasoning": {"exclude": True, "effort": "low"}, "padding": "x" * LARGE_BODY},
]


@pytest.mark.parametrize("fields", LONG_FIELDS, ids=range(len(LONG_FIELDS)))
def test_large_chat_is_read_like_a_small_one(fields: dict[str, Any]) -> None:
    """Every field of the parsed request is the same, however the body came to be large."""
    body = json.dumps({"model": "m"} | fields).encode()
    assert len(body) > LARGE_BODY

    assert CHAT.parse(body) == CHAT.parse_small(body)


@pytest.mark.parametrize(
    "prompt",
    [
        "p" * LARGE_BODY,
        ["a"] * 90_000,
        [1] * 200_000,
        [[1, 2]] * 90_000,
        ["a" * LARGE_BODY, "b"],
        [[1] * LARGE_BODY] * 2,
    ],
    ids=["text", "texts", "tokens", "token lists", "long texts", "long token lists"],
)
@pytest.mark.parametrize("embeds", [None, ["x"] * 90_000], ids=["", "embeds"])
def test_all_prompts_of_a_large_completion_count(prompt: Any, embeds: Any) -> None:
    """A budget reserves for every prompt and choice, also for those that are not decoded."""
    body = json.dumps({"model": "m", "prompt": prompt, "prompt_embeds": embeds, "n": 2}).encode()

    large, whole = COMPLETIONS.parse(body), COMPLETIONS.parse_small(body)

    assert (large.prompts, large.choices) == (whole.prompts, whole.choices)


def test_large_embedding() -> None:
    """The input of an embedding passes unread."""
    body = json.dumps({"model": "m", "input": ["x" * 100] * 5_000}).encode()

    assert EMBEDDINGS.parse(body) == EMBEDDINGS.parse_small(body)


@pytest.mark.parametrize("change", ["metadata", "chat_template_kwargs", "stream_options", "model"])
def test_long_field_that_is_read_whole_is_refused(change: str) -> None:
    """Fields that have to be decoded as a whole may not be long, so decoding them takes no time."""
    body = {"model": "m", "messages": [], change: {str(i): i for i in range(50_000)}}

    with pytest.raises(InvalidRequest) as refused:
        CHAT.parse(json.dumps(body).encode())
    assert refused.value.param == change


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[{"role":"user","content":"' + b"a" * LARGE_BODY + b"\xff" + b'"}]}',
        b'{"model":"m","messages":[]' + b" " * LARGE_BODY,
        b'{"model":"m","messages":[],"x":[' + b"[" * LARGE_BODY + b"]" * LARGE_BODY + b"]}",
        b'{"model":"m","messages":[],"x":"' + b"a" * 5_000_000 + b'\\x"}',
        b'{"model":"m","messages":[],"x":"' + b"a" * 5_000_000 + b"\n" + b'"}',
        b'{"model":"m","messages":[],"x":[' + b"1," * 3_000_000 + b"]}",
        b'{"model":"m","messages":[],' + b'"x":1,' * 300_000 + b'"y":2}',
        b'{"model":"m","messages":7,"x":"' + b"a" * LARGE_BODY + b'"}',
        b'{"model":"m","messages":[' + b"7," * LARGE_BODY + b"7]}",
        b"[" + b"1," * LARGE_BODY + b"1]",
        b" " * LARGE_BODY * 2,
    ],
    ids=range(11),
)
def test_invalid_large_body(body: bytes) -> None:
    """What is wrong with a large body is one clear error, as with a small one."""
    with pytest.raises(GatewayError) as refused:
        CHAT.parse(body)
    assert isinstance(refused.value, InvalidJson | InvalidRequest)
    assert len(refused.value.message) < 200
