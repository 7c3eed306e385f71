"""Streams that are well-formed but unusual pass unchanged, and are counted as well as can be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.openai_api.stream import StreamReader

USAGE = {"prompt_tokens": 7, "completion_tokens": 42, "total_tokens": 49}


def chunk(finish: str | None = None, index: int = 0, **delta: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


HELLO = b"data: " + compact(chunk(content="Hello")) + b"\n\n"
STOP = b"data: " + compact(chunk("stop")) + b"\n\n"
LAST = b"data: " + compact({"choices": [], "usage": USAGE}) + b"\n\n"
ANSWER = HELLO + STOP + LAST
DONE = b"data: [DONE]\n\n"


def read(stream: bytes, **options: Any) -> tuple[bytes, StreamReader]:
    """Read a stream to its end, a few bytes at a time."""
    reader = StreamReader(**({"strip_usage": False} | options))
    pieces = [reader.feed(stream[at : at + 11]) for at in range(0, len(stream), 11)]
    return b"".join(pieces) + reader.finish(), reader


@pytest.mark.parametrize(
    "layout", [compact, lambda value: json.dumps(value, indent=1).replace("\n", "").encode()]
)
def test_half_a_character(layout: Any) -> None:
    """A lone surrogate, as of an emoji that is cut in two, costs neither the stream nor its counts."""
    counted = chunk(content="\ud83d") | {"usage": {"completion_tokens": 1}}
    stream = b"".join(b"data: " + layout(event) + b"\n\n" for event in (counted, chunk("stop")))
    passed, reader = read(stream, strip_counts=True)

    assert passed.endswith(DONE)
    assert b"\\ud83d" in passed or b"?" in passed
    assert reader.token_usage().completion == 1


@pytest.mark.parametrize(
    ("end", "added"),
    [
        (b"data: [DONE]\n\n", b""),
        (b"data: [DONE]\n", b"\n"),
        (b"data: [DONE]", b"\n\n"),
        (b"data:[DONE]\n\n", b""),
        (b"data:[DONE]", b"\n\n"),
        (b"data: [DONE] \n\n", b""),
        (b"data: [DONE]\t\n", b"\n"),
        (b"data: [DONE]\r\n\r\n", b""),
        (b"data: [DONE]\r\n", b"\n"),
        (b"data: [DONE]\n\r\n", b""),
        (b"data: [DONE]\r\r", b""),
        (b"event: done\ndata: [DONE]\nid: 9\n\n", b""),
        (b"", DONE),
        (b"\n", DONE),
        (b'data: {"choices":[],"us', None),
    ],
)
def test_end_of_a_stream(end: bytes, added: bytes | None) -> None:
    """However the end mark is written, the answer has ended well. What a client waits for is added."""
    passed, reader = read(ANSWER + end)

    assert reader.done
    assert passed == (ANSWER + DONE if added is None else ANSWER + end + added)
    assert (reader.token_usage().completion, reader.token_usage().source) == (42, "backend")


def test_answer_that_broke_off_gets_no_end_mark() -> None:
    """Without the finish reason of every choice, the end of the connection is not the end of the answer."""
    two = b"".join(b"data: " + compact(chunk("stop", index=at)) + b"\n\n" for at in (0, 1))
    for stream, choices in ((HELLO, 1), (HELLO + STOP[:-9], 1), (HELLO + STOP, 2), (two, 3)):
        passed, reader = read(stream, choices=choices)
        assert not reader.done
        assert stream.startswith(passed)
    assert read(two, choices=2)[1].done


def test_last_event_without_a_blank_line() -> None:
    """A usage event that only lacks its blank line is read and passed on."""
    passed, reader = read(HELLO + STOP + LAST.rstrip())

    assert passed == ANSWER + DONE
    assert reader.token_usage().completion == 42


def lines(value: Any, indent: int | None = 1) -> bytes:
    """An event whose JSON is spread over several `data:` lines."""
    text = json.dumps(value, indent=indent)
    return b"".join(b"data: " + line.encode() + b"\n" for line in text.splitlines()) + b"\n"


LAYOUTS = {
    "several lines": lines,
    "spaces before colons": lambda value: (
        b"data: " + json.dumps(value, separators=(" , ", " : ")).encode() + b"\n\n"
    ),
    "many spaces": lambda value: b"data:  " + json.dumps(value, separators=(",", ":  ")).encode() + b"\n\n",
    "usage first": lambda value: b"data: " + compact(dict(sorted(value.items(), reverse=True))) + b"\n\n",
    "with names": lambda value: b"event: chunk\nid: 7\nretry: 10\ndata: " + compact(value) + b"\n\n",
    "comments": lambda value: b": ping\n\ndata: " + compact(value) + b"\n\n",
    "crlf": lambda value: b"data: " + compact(value) + b"\r\n\r\n",
    "cr": lambda value: b"data: " + compact(value) + b"\r\r",
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_layouts(layout: Any, bom: bytes) -> None:
    """Any layout of the same events has the same tokens, and not a byte of it changes."""
    events = [chunk(reasoning="a"), chunk(content="b"), chunk(content="c"), chunk("length")]
    stream = bom + b"".join(layout(value) for value in events) + DONE
    passed, reader = read(stream)
    usage = reader.token_usage()

    assert passed == stream
    assert reader.done
    assert (usage.completion, usage.reasoning, usage.finish_reason) == (3, 1, "length")

    final = b"".join([bom, *map(layout, events), layout({"choices": [], "usage": USAGE}), DONE])
    usage = read(final)[1].token_usage()
    assert (usage.prompt, usage.completion, usage.source) == (7, 42, "backend")


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_running_counts_in_any_layout(layout: Any) -> None:
    """A running count is read in any layout, and deltas of several tokens are charged in full."""
    counted = [chunk(content="a b c") | {"usage": USAGE | {"completion_tokens": n}} for n in (3, 6)]
    stream = b"".join(layout(value) for value in [*counted, chunk("stop")]) + DONE

    assert read(stream, strip_counts=True)[1].token_usage().completion == 6


@pytest.mark.parametrize(
    ("usage", "completion"),
    [
        (USAGE | {"completion_tokens": 42.0}, 42),
        (USAGE | {"completion_tokens": "42"}, 42),
        (USAGE | {"completion_tokens": float("nan")}, 42),
        (USAGE | {"prompt_tokens": "?", "cost": {"a": [{"b": {}}]}}, 42),
        (USAGE | {"prompt_tokens_details": [{"modality": "TEXT", "tokenCount": 5}]}, 42),
        (USAGE | {"completion_tokens_details": {"reasoning_tokens": "x"}}, 42),
        ({"completion_tokens": -1}, 1),
        ([1], 1),
        ("many", 1),
        (None, 1),
        ({}, 1),
    ],
)
def test_odd_usage_at_the_end(usage: Any, completion: int) -> None:
    """An odd value costs only itself: the others are read, and without any the deltas are counted."""
    last = b"data: " + compact({"choices": [], "usage": usage}) + b"\n\n"
    passed, reader = read(HELLO + STOP + last + DONE)

    assert passed == HELLO + STOP + last + DONE
    assert reader.token_usage().completion == completion


@pytest.mark.parametrize("value", [{"choices": None, "usage": USAGE}, {"usage": USAGE}])
def test_final_usage_without_choices(value: dict[str, Any]) -> None:
    """The final usage is read whether its choices are empty, null or absent."""
    assert read(HELLO + STOP + b"data: " + compact(value) + b"\n\n" + DONE)[1].token_usage().completion == 42


def test_error_that_is_null_is_none() -> None:
    """Chunks that name an error and have none are chunks."""
    stream = b'data: {"error":null,"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n' + DONE
    passed, reader = read(stream)

    assert (passed, reader.failed, reader.token_usage().completion) == (stream, False, 1)


@pytest.mark.parametrize("start", [b"data:", b"data: ", b"event: error\ndata: ", b"data:\n data: "])
def test_errors_in_any_layout(start: bytes) -> None:
    """An error event is noticed with and without spaces, and after a name."""
    assert read(HELLO + start.replace(b"\n data", b"\ndata") + b'{"error": {"message": "m"}}\n\n')[1].failed
