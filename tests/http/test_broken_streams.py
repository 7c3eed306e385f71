"""A broken stream ends in one error event after whole events; a refusal before them is an HTTP error."""

from __future__ import annotations

import json

import openai
import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.wire import (
    asked,
    distinct,
    events,
    post,
    post_recorded,
    replicated,
    slots,
    stream_errors,
    tokens,
)
from tests.serving import Running

BREAKS = {
    "cut": Fault(after=3, end="cut"),
    "cut in an event": Fault(after=3, end="cut", half_event=True),
    "clean end": Fault(after=3, end="clean"),
    "clean end in an event": Fault(after=3, end="clean", half_event=True),
    "glued": Fault(after=3, end="cut", half_event=True, glue=100),
    "crlf": Fault(after=3, end="clean", half_event=True, crlf=True),
    "cut into bytes": Fault(after=3, end="cut", half_event=True, split=9),
    "with comments": Fault(after=3, end="cut", comments=1),
}
UNBREAKABLE = {"breaker": {"failures": 1_000}}
REFUSAL = {"message": "n is wrong", "type": "BadRequestError", "param": "n", "code": 400}


async def test_a_break_is_one_error_event(subtests: pytest.Subtests) -> None:
    """A broken stream forwards its whole events, drops a half one, and ends in one OpenAI error event."""
    async with replicated(1, **UNBREAKABLE) as (running, (backend,)):
        for name, fault in BREAKS.items():
            with subtests.test(name):
                backend.script(fault)
                answer, record = await post_recorded(running, distinct(stream=True))

                assert (answer.status, record.status) == (200, 200)
                assert tokens(answer.body) == [" t0", " t1", " t2"]
                (error,) = stream_errors(answer.body)
                assert {"message", "type", "param", "code"} == set(error)
                assert (error["type"], error["code"]) == ("server_error", "backend_disconnected")
                *whole, last = events(answer.body)
                assert last == f"data: {json.dumps({'error': error}, separators=(',', ':'))}\n\n".encode()
                assert all(event.endswith((b"\n\n", b"\r\n\r\n")) for event in whole)
                assert b"[DONE]" not in answer.body
                assert record.error is not None
                assert record.error.code == "backend_disconnected"


async def test_a_reset_is_one_error_event(running: Running, backend: Backend) -> None:
    """A reset may lose the last tokens; what arrives is whole events and then one error event."""
    backend.script(Fault(after=5, end="reset", half_event=True))
    answer = await post(running, distinct(stream=True))

    said = tokens(answer.body)
    assert [f" t{index}" for index in range(len(said))] == said
    assert len(said) <= 5
    assert [error["code"] for error in stream_errors(answer.body)] == ["backend_disconnected"]


@pytest.mark.parametrize("end", ["data: [DONE]\n\n", ""])
async def test_backends_error_event_is_the_only_one(running: Running, backend: Backend, end: str) -> None:
    """The backend's error event is forwarded unchanged, with or without [DONE], and no second is added."""
    chunk = 'data: {"choices":[{"index":0,"delta":{"content":" t0"}}]}\n\n'
    error = f"data: {json.dumps({'error': REFUSAL | {'code': 500}})}\n\n"
    backend.script(Fault(body=chunk + error + end))
    answer, record = await post_recorded(running, distinct(stream=True))

    assert (chunk + error + end).encode() == answer.body
    assert record.error is not None
    assert (record.error.code, record.usage.completion) == ("backend_error", 1)


async def test_engine_failure_in_a_stream(running: Running, backend: Backend) -> None:
    """If vLLM's engine fails in a stream, the official client gets the tokens and then an APIError."""
    backend.script(Fault(after=2, error="EngineCore encountered an issue."))
    said = []
    async with running.client() as client:
        stream = await client.chat.completions.create(**distinct(), stream=True)
        with pytest.raises(openai.APIError, match="EngineCore encountered an issue"):
            async for chunk in stream:
                said.append(chunk.choices[0].delta.content)

    assert said == ["", " t0", " t1"]


@pytest.mark.parametrize("fault", [BREAKS["cut"], BREAKS["clean end in an event"]])
async def test_official_client_raises(running: Running, backend: Backend, fault: Fault) -> None:
    """The official client yields the tokens that arrived and then raises, instead of ending normally."""
    backend.script(fault)
    said = []
    async with running.client() as client:
        stream = await client.chat.completions.create(**distinct(), stream=True)
        with pytest.raises(openai.APIError, match="closed") as raised:
            async for chunk in stream:
                said.append(chunk.choices[0].delta.content)

    assert said == ["", " t0", " t1", " t2"]
    assert raised.value.code == "backend_disconnected"


REFUSALS = [
    (REFUSAL, 400, "invalid_value"),
    (
        REFUSAL | {"message": "This model's maximum context length is 9 tokens."},
        400,
        "context_length_exceeded",
    ),
    (REFUSAL | {"code": 500}, 502, "backend_error"),
    (REFUSAL | {"code": 503}, 503, "no_backend"),
    (REFUSAL | {"code": None}, 502, "backend_error"),
]


@pytest.mark.parametrize("split", [0, 3])
async def test_error_as_first_event_is_an_http_error(subtests: pytest.Subtests, split: int) -> None:
    """vLLM refuses some streams with status 200 and an error event; the client gets an error status."""
    async with replicated(1, **UNBREAKABLE) as (running, (backend,)):
        for number, (error, status, code) in enumerate(REFUSALS, 1):
            with subtests.test(error=error):
                body = f"data: {json.dumps({'error': error})}\n\ndata: [DONE]\n\n"
                backend.script(Fault(body=body, split=split))
                answer = await post(running, distinct(stream=True))

                assert (answer.status, answer.code) == (status, code)
                assert answer.headers["content-type"] == "application/json"
                assert (answer.json["error"]["param"] == "n") == (status == 400)
                assert len(asked(backend)) == number


async def test_official_client_sees_a_refused_stream(running: Running, backend: Backend) -> None:
    """If the first event is a refusal, `create` raises BadRequestError before it returns a stream."""
    backend.script(Fault(after=-1, error="no such thing", error_code=400))
    async with running.client() as client:
        with pytest.raises(openai.BadRequestError, match="no such thing"):
            await client.chat.completions.create(**distinct(), stream=True)


NOTHING_YET = [
    Fault(after=-1, error="engine is dead", error_code=503),
    Fault(after=-1, end="cut", half_event=True),
    Fault(after=-1, end="clean", half_event=True),
    Fault(after=-1, end="reset", half_event=True),
    Fault(after=-1, end="cut", half_event=True, split=3),
    Fault(body='data: {"error": {"message": "dead", "code": 503}}\n\n', split=3),
]


async def test_less_than_an_event_is_not_a_first_byte(subtests: pytest.Subtests) -> None:
    """Until a whole event has arrived, the gateway may try another replica, if it may at all."""
    settings = {"failover": {"resend_lost": True, "retry_share": 1}}
    async with replicated(**UNBREAKABLE, **settings) as (running, (a, b)):
        for number, fault in enumerate(NOTHING_YET, 1):
            with subtests.test(fault=fault):
                a.script(fault)
                answer, record = await post_recorded(running, distinct(stream=True))

                assert (answer.status, record.backend, record.attempts) == (200, "b", 2)
                assert len(tokens(answer.body)) == 32
                assert stream_errors(answer.body) == []
                assert (len(asked(a)), len(asked(b))) == (number, number)
                assert slots(running) == [0, 0]


async def test_never_after_the_first_byte(subtests: pytest.Subtests) -> None:
    """Once an event has been forwarded, no other replica is tried and the client gets an error event."""
    later = [Fault(after=0, end="cut"), Fault(after=1, error="boom"), Fault(after=1, end="reset")]
    async with replicated(**UNBREAKABLE) as (running, (a, b)):
        for number, fault in enumerate([*BREAKS.values(), *later], 1):
            with subtests.test(fault=fault):
                a.default = b.default = fault
                answer = await post(running, distinct(stream=True))

                assert (answer.status, len(stream_errors(answer.body))) == (200, 1)
                assert len(asked(a)) + len(asked(b)) == number
                assert slots(running) == [0, 0]
