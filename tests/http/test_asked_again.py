"""A backend that refuses what the gateway added to a request is asked again without it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.openai_api.large_requests import LARGE_BODY
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.wire import ask, asked, post, post_recorded, replicated, slots, tokens
from tests.making import USAGE
from tests.redis import used
from tests.serving import Running, configuration, serving

CAP, BUDGET = "max_completion_tokens", "thinking_token_budget"
UNCONFIGURED = "thinking_token_budget is set but reasoning_config is not configured."
NO_BUDGET = Fault(status=400, message=UNCONFIGURED, refuses=BUDGET)
STREAMS = pytest.mark.parametrize("stream", [False, True])


def long(**fields: Any) -> dict[str, Any]:
    """A request at the tier `long`: 256 tokens of thinking and 32 of answer."""
    return ask(model="tiny:long") | fields


def no_room(room: int, *, counted: bool = True) -> Fault:
    """Refuses longer completions, as vLLM up to 0.31 does."""
    prompt = f"{1000 - room}" if counted else f"at least {1000 - room}"
    said = f"However, you requested 288 output tokens and your prompt contains {prompt} input tokens"
    message = f"This model's maximum context length is 1000 tokens. {said}."
    return Fault(status=400, message=message, refuses=f"{CAP}>{room}")


def sent(backend: Backend, name: str) -> list[Any]:
    return [request.json.get(name) for request in asked(backend)]


@STREAMS
async def test_room_in_the_refusal(running: Running, backend: Backend, stream: bool) -> None:
    """The completion gets the room that the backend names. The answer keeps its part; thinking is cut."""
    backend.default = no_room(100)
    answer, record = await post_recorded(running, long(stream=stream))

    assert answer.status == 200
    assert (sent(backend, CAP), sent(backend, BUDGET)) == ([288, 100], [256, 68])
    assert answer.headers["x-thinkmeter-thinking-budget"] == "68"
    assert (record.attempts, record.error, record.usage.completion) == (1, None, 100)
    assert record.decision is not None
    assert record.decision.cap == 100


async def test_refusals_are_no_failures(running: Running, backend: Backend) -> None:
    """They count neither as a retry nor against the replica, and leave no slot taken."""
    backend.default = no_room(100)
    for _ in range(9):
        assert (await post(running, long())).status == 200

    metrics = await running.metrics()
    assert metrics[f'thinkmeter_fields_refused_total{{backend="a",field="{CAP}",model="tiny"}}'] == 9
    assert metrics['thinkmeter_backend_breaker_state{backend="a",model="tiny"}'] == 0
    assert 'thinkmeter_upstream_retries_total{model="tiny"}' not in metrics
    assert slots(running) == [0]


async def test_prompt_that_was_not_counted(running: Running, backend: Backend) -> None:
    """Without a number, budget or limit of the client, the backend ends the answer at its context."""
    backend.default = no_room(100, counted=False)
    answer = await post(running, long())

    assert answer.status == 200
    assert (sent(backend, CAP), sent(backend, BUDGET)) == ([288, None], [256, 25])


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"max_tokens": 40}, no_room(30)),
        ({}, Fault(context_too_long=True)),
        ({}, no_room(-5)),
        ({}, Fault(status=400, message="n is wrong")),
        ({BUDGET: 20}, NO_BUDGET),
    ],
    ids=["own limit", "prompt", "prompt, bound", "own field", "own budget"],
)
async def test_fault_of_the_client(
    running: Running, backend: Backend, fields: dict[str, Any], fault: Fault
) -> None:
    """What the client sent itself is never changed: it gets the backend's own message, after one attempt."""
    backend.default = replace(fault, refuses=None)
    answer = await post(running, long(**fields))

    assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")
    if not fault.context_too_long:
        assert answer.json["error"]["message"] == fault.message
    assert len(asked(backend)) == 1


async def test_minimum_above_the_cap(running: Running, backend: Backend) -> None:
    """`min_tokens` that only our own cap makes too high is lowered to it."""
    backend.default = no_room(40)
    answer = await post(running, ask(min_tokens=60, max_tokens=80))

    assert answer.status == 200
    assert (sent(backend, "min_tokens"), sent(backend, CAP)) == ([60, 40], [60, 40])


FORBIDDEN = {"type": "extra_forbidden", "loc": ["body", BUDGET], "msg": "Extra inputs are not permitted"}
REFUSALS = {
    "400": NO_BUDGET,
    "500": Fault(status=500, message=UNCONFIGURED, refuses=BUDGET),
    "FastAPI": Fault(status=422, body={"detail": [FORBIDDEN]}, refuses=BUDGET),
    "in the stream": Fault(after=-1, error=UNCONFIGURED, error_code=400, refuses=BUDGET),
}


@pytest.mark.parametrize("fault", REFUSALS.values(), ids=REFUSALS)
async def test_refused_budget(
    running: Running, backend: Backend, caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    """The budget is left out at once, and then from the start; the limit still holds. It is told once."""
    backend.default = fault
    answers = [await post(running, long(stream=True)) for _ in range(3)]

    assert [len(tokens(answer.body)) for answer in answers] == [288] * 3
    assert sent(backend, BUDGET) == [256, None, None, None]
    assert sent(backend, CAP) == [288] * 4
    metrics = await running.metrics()
    assert metrics[f'thinkmeter_fields_refused_total{{backend="a",field="{BUDGET}",model="tiny"}}'] == 1
    assert not any(name.startswith("thinkmeter_thinking_budget_total{") for name in metrics)
    (shown,) = running.gateway.console.snapshot()["backends"]
    assert shown["refused"] == [BUDGET]
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len([line for line in told if BUDGET in line and "--reasoning-config" in line]) == 1


async def test_memory_ends_with_a_restart(running: Running, backend: Backend) -> None:
    """A replica that failed a health check and passes again may have got other options."""
    backend.default = NO_BUDGET
    await post(running, long())
    backend.script(Fault(status=503), path="/health")
    for _ in range(2):
        await running.gateway.health.check()
    backend.default = Fault()
    await post(running, long())

    assert sent(backend, BUDGET) == [256, None, 256]


async def test_each_replica_gets_what_it_takes() -> None:
    """What one replica refuses, the other still gets, also when it takes over the request."""
    async with replicated() as (running, (a, b)):
        a.default = NO_BUDGET
        for _ in range(4):
            assert (await post(running, long())).status == 200
        assert (sent(a, BUDGET), sent(b, BUDGET)) == ([256, None, None], [256, 256])

        a.default = Fault(status=503)
        for _ in range(2):
            assert (await post(running, long())).headers["x-thinkmeter-backend"] == "b"
        assert sent(b, BUDGET) == [256] * 4


async def test_false_alarm_is_not_remembered(running: Running, backend: Backend) -> None:
    """An error that names an added field, and stays without it, says nothing about the field."""
    backend.default = Fault(status=400, message="unknown thing, not thinking_token_budget")
    assert (await post(running, long())).status == 400
    backend.default = Fault()
    await post(running, long())

    assert sent(backend, BUDGET) == [256, None, 256]


async def test_field_refused_beside_another(running: Running, backend: Backend) -> None:
    """A field that the backend refuses only in this request is sent with the next one."""
    backend.script(Fault(status=400, message=f"{BUDGET} is not supported with beam search"))
    for _ in range(2):
        assert (await post(running, long())).status == 200

    assert sent(backend, BUDGET) == [256, None, 256]


async def test_asks_for_a_length_once(running: Running, backend: Backend) -> None:
    """Fields and length are asked for; a length that is refused again is the client's error."""
    backend.script(NO_BUDGET)
    backend.default = no_room(100)
    assert (await post(running, long())).status == 200
    assert (sent(backend, CAP), sent(backend, BUDGET)[1:]) == ([288, 288, 100], [None, None])

    backend.default = Fault(status=400, message=no_room(100).message)
    answer = await post(running, long())
    assert (answer.status, answer.code) == (400, "context_length_exceeded")
    assert sent(backend, CAP)[3:] == [288, 96]  # of the tier below, as nothing would end the longer thought


async def test_keys_and_words(backend: Backend) -> None:
    """Of an object only the refused key goes. A refused word does not stop another word."""
    thinking = {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "$effort"}
    family = {"no_thinking": {}, "thinking": thinking, "efforts": ["low", "high"]}
    tiers = {
        "short": {"thinking": 16, "answer": 8, "effort": "low"},
        "long": {"thinking": 64, "answer": 8, "effort": "high"},
    }
    model = {"family": "own", "tiers": tiers}
    message = "Unsupported reasoning_effort: 'high'. Supported values: low."
    backend.default = Fault(status=400, message=message, refuses="reasoning_effort=high")
    async with serving(configuration(backend.url, model=model, families={"own": family})) as running:
        for tier in ("long", "long", "short"):
            assert (await post(running, ask(model=f"tiny:{tier}"))).status == 200
        assert sent(backend, "reasoning_effort") == ["high", None, None, "low"]

        message = "Unknown keyword enable_thinking in chat_template_kwargs"
        backend.default = Fault(status=400, message=message, refuses="chat_template_kwargs.enable_thinking")
        fields = {"chat_template_kwargs": {"custom": 1}}
        assert (await post(running, ask(model="tiny:short", **fields))).status == 200
        kwargs = {"enable_thinking": True, "custom": 1}
        assert sent(backend, "chat_template_kwargs")[-2:] == [kwargs, {"custom": 1}]


@pytest.mark.parametrize("option", ["include_usage", "continuous_usage_stats"])
async def test_counts_that_a_backend_refuses(completion: Running, backend: Backend, option: str) -> None:
    """Without the backend's count, a stream is charged all that it may have spent."""
    backend.default = Fault(
        status=400, message=f"Unknown field {option}", refuses=f"stream_options.{option}", tokens=4
    )
    answer, record = await post_recorded(completion, ask(stream=True))
    exact = option != "include_usage"

    assert answer.status == 200
    assert await used(completion) == (4 if exact else 32, 0)
    assert record.usage.completion == 4


async def test_large_request(running: Running, backend: Backend) -> None:
    """A large body is not held twice, and yet can be sent again; its text stays as it was."""
    backend.default = no_room(100)
    content = "word" * (LARGE_BODY // 4)
    answer = await post(running, long(temperature=0.5) | {"messages": [{"role": "user", "content": content}]})

    first, second = (request.json for request in asked(backend))
    assert answer.status == 200
    assert second == first | {CAP: 100, BUDGET: 68}


async def test_connection_that_is_reset_after_a_refusal() -> None:
    """vLLM 0.20 resets the connection of some refusals unannounced, so the next attempt opens another."""

    connections: set[asyncio.Task[Any] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())
        head = await reader.readuntil(b"\r\n\r\n")
        size = re.search(rb"content-length: (\d+)", head.lower())
        body = await reader.readexactly(int(size[1])) if size else b""
        refuses = b"thinking_token_budget" in body
        answer = {"message": UNCONFIGURED} if refuses else {"id": "x", "choices": [], "usage": USAGE}
        text = json.dumps(answer).encode()
        writer.write(b"HTTP/1.1 %d Some\r\ncontent-type: application/json\r\n" % (400 if refuses else 200))
        writer.write(b"content-length: %d\r\n\r\n%b" % (len(text), text))
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1")
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, serving(configuration(url)) as running:
        answer, record = await post_recorded(running, long())
        await asyncio.gather(*filter(None, connections))

    assert (answer.status, record.attempts) == (200, 1)


async def test_never_after_the_first_byte(running: Running, backend: Backend) -> None:
    """An error inside a stream that has begun ends it, whatever it names."""
    backend.default = Fault(after=1, error=UNCONFIGURED, error_code=400)
    answer = await post(running, long(stream=True))

    assert (answer.status, len(asked(backend))) == (200, 1)


async def test_other_endpoint(running: Running, backend: Backend) -> None:
    """A legacy completion has nothing that was added, so its refusal passes."""
    backend.default = Fault(status=400, message=no_room(10).message)
    answer = await post(running, {"model": "tiny", "prompt": "hi", "max_tokens": 9}, path="/v1/completions")

    assert (answer.status, len(asked(backend))) == (400, 1)
    assert answer.json["error"]["message"] == no_room(10).message
