"""Unusual responses that a client can use reach it, and cost at most what they may have spent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.wire import ask, post, post_recorded, replicated
from tests.redis import used
from tests.serving import Running, configuration, serving

USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
CHAT = {"id": "c", "object": "chat.completion", "choices": [CHOICE], "usage": USAGE}
DELTA = {"id": "c", "choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}]}
SSE = "text/event-stream; charset=utf-8"
STREAM = f"data: {json.dumps(DELTA)}\n\ndata: [DONE]\n\n"
OCTETS = "application/octet-stream"

WHOLE: list[tuple[dict[str, Any], int | None, str | None]] = [
    ({"usage": {"prompt_tokens": 5.0, "completion_tokens": 3.0}}, 3, None),
    ({"usage": USAGE | {"completion_tokens": "3"}}, 3, None),
    ({"usage": USAGE | {"completion_tokens": [3]}}, 3, "completion"),
    ({"usage": {"prompt_tokens": 5, "completion_tokens": -3}}, None, "completion"),
    ({"usage": USAGE | {"prompt_tokens": "five"}}, 3, "prompt"),
    ({"usage": USAGE | {"prompt_tokens_details": [{"modality": "TEXT", "tokenCount": 5}]}}, 3, "cached"),
    ({"usage": USAGE | {"completion_tokens_details": {"reasoning_tokens": "?"}}}, 3, "reasoning"),
    ({"usage": None}, None, "response"),
    ({"usage": "free"}, None, "completion"),
    ({"choices": None}, 3, None),
    ({"choices": [CHOICE | {"finish_reason": {"type": "stop"}}]}, 3, None),
    ({"choices": [CHOICE | {"message": {"content": [{"type": "text", "text": "ok"}]}}]}, 3, None),
    ({"choices": [CHOICE | {"message": {"content": "ok", "reasoning": {"text": "x"}}}]}, 3, None),
    ({"choices": [CHOICE | {"logprobs": float("nan")}]}, 3, None),
]


async def test_one_odd_value(subtests: pytest.Subtests) -> None:
    """A value that only counts can never cost the response, and only its own count is unknown."""
    async with replicated(1, breaker={"failures": 1}) as (running, (backend,)):
        for changes, completion, what in WHOLE:
            with subtests.test(changes=changes):
                body = json.dumps(CHAT | changes)
                before = await running.metrics()
                backend.script(Fault(body=body))
                answer, record = await post_recorded(running, ask())
                after = await running.metrics()

                assert (answer.status, answer.body) == (200, body.encode())
                assert record.usage.completion == completion
                moved = {
                    name for name in after if "uncounted_total" in name and after[name] != before.get(name)
                }
                series = f'thinkmeter_uncounted_total{{model="tiny",what="{what}"}}'
                assert moved == ({series} if what else set())


async def test_count_that_cannot_be_read_costs_the_reservation(completion: Running, backend: Backend) -> None:
    """Under a budget, what cannot be counted is charged as all that it may have spent."""
    backend.script(Fault(body=CHAT | {"usage": {"completion_tokens": "many"}}))
    assert (await completion.chat(model="tiny:direct")).status == 200
    assert await used(completion) == (32, 0)

    backend.script(Fault(body=STREAM.replace('"content": "ok"', '"output": "ok"')))
    assert (await completion.chat(model="tiny:direct", stream=True)).status == 200
    assert await used(completion) == (64, 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_other_kind_than_asked_for(completion: Running, backend: Backend, stream: bool) -> None:
    """A stream that nobody asked for passes, and so does JSON in place of a stream, and both are counted."""
    body = json.dumps(CHAT) if stream else STREAM
    backend.script(Fault(body=body, content_type="application/json" if stream else SSE))
    answer, record = await post_recorded(completion, ask(stream=stream))

    assert (answer.status, answer.body) == (200, body.encode())
    assert record.stream is not stream
    assert await used(completion) == (3 if stream else 32, 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_error_event_in_place_of_a_whole_response(backend: Backend, stream: bool) -> None:
    """An error as the first event is an HTTP error, whatever was asked for, and in any layout."""
    error = 'event: error\ndata: {"error":\ndata: {"message": "n is wrong", "code": 400}}\n\n'
    async with serving(configuration(backend.url)) as running:
        backend.script(Fault(body=error, content_type=SSE))
        answer = await post(running, ask(stream=stream))

    assert (answer.status, answer.json["error"]["message"]) == (400, "n is wrong")


@pytest.mark.parametrize("encoding", ["bytes", "bytes_only"])
@pytest.mark.parametrize("size", [8, 600_000])
async def test_embeddings_in_bytes(total: Running, backend: Backend, encoding: str, size: int) -> None:
    """Embeddings in bytes pass, with the header that describes them, and their prompt is counted."""
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    metadata = json.dumps({"data": [{"index": 0, "start": 0, "end": size}], "usage": usage})
    headers = {"metadata": metadata} if encoding == "bytes" else {}
    vector = "\x01" * size
    backend.script(Fault(body=vector, content_type=OCTETS, headers=headers), path="/v1/embeddings")
    body = {"model": "tiny", "input": "one two", "encoding_format": encoding}
    answer, record = await post_recorded(total, body, path="/v1/embeddings")

    assert (answer.status, answer.body) == (200, vector.encode())
    assert answer.headers["content-type"] == OCTETS
    assert answer.headers.get("metadata") == headers.get("metadata")
    assert record.error is None
    spent, reserved = await used(total)
    assert reserved == 0
    assert spent == 4 if encoding == "bytes" else spent > 4


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/chat/completions", OCTETS),
        ("/v1/chat/completions", "text/html"),
        ("/v1/embeddings", "text/html; charset=utf-8"),
    ],
)
async def test_page_of_a_proxy(running: Running, backend: Backend, path: str, kind: str) -> None:
    """What is no response of the API stays an error."""
    backend.script(Fault(body="<html>", content_type=kind), path=path)
    body = ask() if "chat" in path else {"model": "tiny", "input": "a"}

    assert (await post(running, body, path=path)).status == 502


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON;charset=UTF-8", "application/x+json", ""]
)
async def test_types_of_json(running: Running, backend: Backend, kind: str) -> None:
    """JSON is recognised by any of its types, and without one."""
    headers = {} if kind else {"content-type": ""}
    backend.script(Fault(body=CHAT, content_type=kind or None, headers=headers))

    assert (await post(running, ask())).status == 200


async def test_answers_that_were_lost(subtests: pytest.Subtests) -> None:
    """A model that ends inside its thought is told as truncated, and a lost parser is named once."""
    lost = CHAT | {"choices": [CHOICE | {"message": {"content": "<think>so</think>\n\n42"}}]}
    eaten = CHAT | {"choices": [CHOICE | {"message": {"content": None, "reasoning": "so"}}]}
    async with replicated(1) as (running, (backend,)):
        ((_, replica),) = running.gateway.backends()
        with subtests.test("ends inside the thought"):
            backend.script(Fault(body=eaten))
            _, record = await post_recorded(running, ask())
            metrics = await running.metrics()
            assert record.usage.truncated
            assert metrics['thinkmeter_truncated_responses_total{model="tiny",tier="direct"}'] == 1
        with subtests.test("lost parser"):
            backend.script(Fault(body=lost), times=2)
            await post(running, ask())
            _, record = await post_recorded(running, ask())
            metrics = await running.metrics()
            (shown,) = running.gateway.console.snapshot()["backends"]
            assert (record.usage.lost_mark, record.usage.reasoning_estimated) == ("<think>", True)
            assert metrics['thinkmeter_parser_lost_total{backend="a",model="tiny"}'] == 2
            assert (replica.lost_mark, shown["lost_mark"]) == ("<think>", "<think>")
        with subtests.test("parser is back"):
            backend.script(Fault(body=eaten))
            await post(running, ask())
            assert replica.lost_mark is None


async def test_a_lost_parser_is_logged_once(
    running: Running, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the replica and the mark, once, and nothing of the answer."""
    thought = {"choices": [{"index": 0, "delta": {"content": "<think>secret"}, "finish_reason": "stop"}]}
    backend.script(Fault(body=f"data: {json.dumps(thought)}\n\ndata: [DONE]\n\n"), times=2)
    for _ in range(2):
        await post(running, ask(stream=True))

    lines = [record.getMessage() for record in caplog.records if "<think>" in record.getMessage()]
    assert lines == ["backend a sends thoughts in its answers (<think>)"]
