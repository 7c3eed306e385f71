"""Streams are forwarded byte by byte; usage that only the gateway requested is removed."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from typing import Any

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.wire import (
    CHAT,
    Answer,
    ask,
    asked,
    connection,
    events,
    post,
    post_recorded,
    post_to,
    stream_errors,
    tokens,
    wired,
)
from tests.serving import Running

FORMS = {
    "plain": Fault(),
    "glued in threes": Fault(glue=3),
    "one block": Fault(glue=10_000),
    "byte by byte": Fault(split=1, tokens=4),
    "cut anywhere": Fault(split=7, glue=2),
    "crlf": Fault(crlf=True),
    "crlf cut anywhere": Fault(crlf=True, split=5),
    "crlf in one block": Fault(crlf=True, glue=10_000),
    "comments": Fault(comments=2),
    "comments in one block": Fault(comments=1, glue=10_000),
    "spaced usage": Fault(usage="spaced"),
    "spaced usage in one block": Fault(usage="spaced", glue=10_000),
    "null usage": Fault(usage="null"),
    "no usage": Fault(usage="missing"),
    "tool calls": Fault(tool_call=True, tokens=3),
    "an event of 200 kB": Fault(pad=200_000),
    "an event of 3 MB": Fault(pad=3_000_000),
}
EMPTY_CHOICES = re.compile(rb'"choices": ?\[\]')


def without_usage(body: bytes) -> bytes:
    """The stream without its usage event."""
    return b"".join(event for event in events(body) if not EMPTY_CHOICES.search(event))


def timeless(body: bytes) -> bytes:
    """The stream with the time of creation set to 0: nothing else differs between equal requests."""
    return re.sub(rb'"created": ?\d+', b'"created":0', body)


async def both(
    running: Running, backend: Backend, body: dict[str, Any], path: str = CHAT
) -> tuple[Answer, Answer]:
    """The gateway's response, and the backend's response to the request that the gateway sent it."""
    headers = {"x-request-id": "twice"}
    ours, record = await post_recorded(running, body, path=path, headers=headers)
    assert record.error is None
    theirs = await post_to(f"{backend.url}{path}", asked(backend)[-1].body, headers)
    return ours, theirs


@pytest.mark.parametrize("model", ["tiny:direct", "tiny:short"])
async def test_stream_is_the_backends_but_for_usage(
    running: Running, backend: Backend, subtests: pytest.Subtests, model: str
) -> None:
    """A client that did not request usage gets every byte of the backend's stream but the usage event."""
    for name, form in FORMS.items():
        with subtests.test(name):
            backend.default = form
            ours, theirs = await both(running, backend, ask(model=model, stream=True))

            assert (theirs.status, theirs.headers["content-type"]) == (200, ours.headers["content-type"])
            assert timeless(without_usage(theirs.body)) == timeless(ours.body)
            assert b"[DONE]" in ours.body


async def test_stream_with_usage_is_identical(
    running: Running, backend: Backend, subtests: pytest.Subtests
) -> None:
    """A client that requested usage gets every byte of the backend's stream."""
    question = ask(model="tiny:short", stream=True, stream_options={"include_usage": True})
    for name, form in FORMS.items():
        with subtests.test(name):
            backend.default = form
            ours, theirs = await both(running, backend, question)

            assert timeless(theirs.body) == timeless(ours.body)
            assert (form.usage != "missing") == bool(EMPTY_CHOICES.search(ours.body))


@pytest.mark.parametrize("asks", [False, True])
async def test_completion_stream(running: Running, backend: Backend, asks: bool) -> None:
    """Streams of the legacy endpoint are forwarded in the same way."""
    options = {"stream_options": {"include_usage": True}} if asks else {}
    body = {"model": "tiny", "prompt": "one two", "max_tokens": 5, "stream": True} | options
    ours, theirs = await both(running, backend, body, "/v1/completions")

    expected = theirs.body if asks else without_usage(theirs.body)
    assert timeless(expected) == timeless(ours.body)
    assert ours.body.count(b'"text":" t') == 5


ODD = (
    'retry: 3000\n: a comment\n\nevent: message\nid: 7\ndata: {"choices":[{"index":0,"delta":'
    '{"content":"naïve ☃ \\ud83d\\ude00 \\"usage\\":{ data: [DONE] "}}]}\n\n'
    'data:{"choices":[{"index":0,"delta":{"content":"no space"},"finish_reason":"stop"}]}\n\n'
    'data: {"choices":[],"prompt_filter_results":[]}\n\n'
)
USAGE = 'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
USAGES = [USAGE, f": about to end\n{USAGE}", f"id: 8\n{USAGE}", USAGE.replace('":', '": ')]
ENDS = ["data: [DONE]\n\n", "data:[DONE]\n\n", "data: [DONE]\n\n: a comment has the last word\n\n"]


@pytest.mark.parametrize("split", [0, 11])
async def test_odd_but_legal_events(
    running: Running, backend: Backend, subtests: pytest.Subtests, split: int
) -> None:
    """Comments, ids, escapes, missing spaces and event names are forwarded; only usage is removed."""
    for usage, end in itertools.product(USAGES, ENDS):
        with subtests.test(usage=usage, end=end):
            backend.script(Fault(body=ODD + usage + end, split=split))
            answer, record = await post_recorded(running, ask(stream=True))

            assert (ODD + end).encode() == answer.body
            assert (record.usage.completion, record.usage.source) == (2, "backend")
            assert record.error is None


@pytest.mark.parametrize("split", [0, 100])
async def test_text_that_looks_like_the_protocol(running: Running, backend: Backend, split: int) -> None:
    """Text that contains JSON or server-sent events neither hides usage nor ends the stream early."""
    text = '{"a": 1, "choices": [], "usage": {"x": 2}}\n\ndata: [DONE]\n\ndata: {"error"'
    chunk = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    wire = f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n"
    backend.script(Fault(body=wire * 3 + USAGE + "data: [DONE]\n\n", split=split))
    answer, record = await post_recorded(running, ask(stream=True))

    assert (wire * 3 + "data: [DONE]\n\n").encode() == answer.body
    assert (record.usage.completion, record.usage.source) == (2, "backend")
    assert record.error is None


async def test_text_that_ends_like_a_stream_is_no_end(running: Running, backend: Backend) -> None:
    """A stream that ends after a token with the text `data: [DONE]` still counts as broken."""
    backend.script(Fault(body='data: {"choices":[{"delta":{"content":"data: [DONE]"}}]}\n\n'))
    answer, record = await post_recorded(running, ask(stream=True))

    assert record.error is not None
    assert [record.error.code] == [error["code"] for error in stream_errors(answer.body)]


STREAM_OPTIONS = [
    ({}, {"include_usage": True}),
    ({"stream_options": None}, {"include_usage": True}),
    ({"stream_options": {}}, {"include_usage": True}),
    ({"stream_options": {"include_usage": False}}, {"include_usage": True}),
    ({"stream_options": {"include_usage": None, "x": [1]}}, {"include_usage": True, "x": [1]}),
    ({"stream_options": {"continuous_usage_stats": True}}, {"include_usage": True}),
    (
        {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        {"include_usage": True, "continuous_usage_stats": True},
    ),
]


@pytest.mark.parametrize(
    ("path", "question"), [(CHAT, ask()), ("/v1/completions", {"model": "tiny", "prompt": "hello"})]
)
async def test_usage_is_asked_upstream(
    running: Running, backend: Backend, subtests: pytest.Subtests, path: str, question: dict[str, Any]
) -> None:
    """Every streaming request asks the backend for usage, and keeps the client's other stream options."""
    for given, sent in STREAM_OPTIONS:
        with subtests.test(given=given):
            answer = await post(running, question | {"stream": True} | given, path=path)

            assert answer.status == 200
            assert sent == asked(backend)[-1].json["stream_options"]


async def test_no_stream_options_without_a_stream(running: Running, backend: Backend) -> None:
    """Requests that do not stream get no stream options, because vLLM would refuse them."""
    for fields in ({}, {"stream": False}, {"stream": None}):
        answer = await post(running, ask(**fields))

        assert answer.status == 200
        assert "stream_options" not in asked(backend)[-1].json


@pytest.mark.parametrize("split", [0, 1])
async def test_events_pass_as_they_come(running: Running, backend: Backend, split: int) -> None:
    """The client gets the first tokens while the backend is still generating."""
    backend.script(Fault(after=2, end="stall", split=split))
    async with connection(running) as (reader, writer):
        writer.write(wired(ask(stream=True)))
        received = b""
        while received.count(b'"content":" t') < 2:
            received += await reader.read(65_536)
        assert backend.in_flight == 1


async def test_streams_do_not_mix(running: Running, backend: Backend) -> None:
    """Of forty concurrent streams, each client gets its own, complete and in order."""
    backend.default = Fault(split=50, tokens=20)

    async def stream(number: int) -> None:
        answer = await post(running, ask(stream=True), headers={"x-request-id": f"client-{number}"})
        assert [f" t{index}" for index in range(20)] == tokens(answer.body)
        assert {f"chatcmpl-client-{number}".encode()} == set(re.findall(rb'"id":"([^"]+)"', answer.body))

    await asyncio.gather(*map(stream, range(40)))
