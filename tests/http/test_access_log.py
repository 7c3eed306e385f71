"""One access log line per request, without its text, and one request id for client, backend and log."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.raw_http import ask
from tests.serving import Running, configuration, serving

CHAT = "/v1/chat/completions"
MARKER = "m4rker"

ALWAYS = {"time", "request_id", "route", "status", "peer", "key", "model", "stream", "duration_ms"}
DECIDED = {
    *(
        "decision_id",
        "tier",
        "requested",
        "reason",
        "arm",
        "rule",
        "difficulty",
        "correct",
        "tokens",
        "price",
    ),
    *("propensity", "eligible", "thinking", "budget_sent", "cap", "wanted", "versions"),
    *("rung", "rung_correct", "rung_tokens", "wanted_rung", "rungs"),
}
SERVED = {
    *("backend", "attempts", "overhead_ms", "first_byte_ms", "prompt_tokens", "completion_tokens"),
    *("reasoning_tokens", "usage", "finish_reason", "truncated", "cancelled"),
}
FAILED = {"error", "message", "detail"}


@pytest.fixture
async def logging_gateway(backend: Backend) -> Any:
    """A gateway that writes its access log to standard output."""
    async with serving(configuration(backend.url, server={"access_log": True})) as running:
        yield running


def lines(running: Running, capture: pytest.CaptureFixture[bytes]) -> list[dict[str, Any]]:
    """The lines of the access log so far. Each must be a JSON object."""
    running.gateway.flush(10)
    written = capture.readouterr().out
    assert written == b"" or written.endswith(b"\n")
    return [json.loads(line) for line in written.splitlines()]


async def test_one_line_for_each_request(
    logging_gateway: Running, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Every request has one line with exactly the documented fields, however it ended."""
    running = logging_gateway
    await running.chat()
    await running.chat(stream=True)
    await ask(running.http, running.url, "/v1/embeddings", {"model": "tiny", "input": "x"})
    await running.chat(model="none")
    await ask(running.http, running.url, "/v1/models", method="GET")
    await ask(running.http, running.url, "/nothing", method="GET")
    await ask(running.http, running.url, CHAT, method="GET")
    await running.chat(metadata={"fault": {"status": 500}})
    await running.recorded(8)

    found = lines(running, capfdbinary)

    assert [set(line) for line in found] == [
        ALWAYS | DECIDED | SERVED,
        ALWAYS | DECIDED | SERVED,
        ALWAYS | SERVED,
        ALWAYS | FAILED,
        ALWAYS,
        ALWAYS | FAILED,
        ALWAYS | FAILED,
        ALWAYS | DECIDED | SERVED | FAILED,
    ]
    assert [line["route"] for line in found] == [
        *(CHAT, CHAT, "/v1/embeddings", CHAT, "/v1/models", "other", CHAT, CHAT)
    ]
    assert [line["status"] for line in found] == [200, 200, 200, 404, 200, 404, 405, 502]
    assert [line["request_id"] for line in found] == [record.request_id for record in running.records]


async def test_probes_leave_no_line_unless_they_fail(
    logging_gateway: Running, backend: Backend, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Probes of load balancers and Prometheus are logged only if the status is not 200."""
    running = logging_gateway
    for path in ("/healthz", "/readyz", "/metrics"):
        await ask(running.http, running.url, path, method="GET")
    await backend.down()
    for _ in range(2):
        await running.gateway.health.check()
    await ask(running.http, running.url, "/readyz", method="GET")
    await ask(running.http, running.url, "/healthz", method="POST")
    await running.recorded(5)

    found = [(line["route"], line["status"]) for line in lines(running, capfdbinary)]

    assert found == [("/readyz", 503), ("/healthz", 405)]


async def test_line_says_what_happened(
    logging_gateway: Running, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The line has the decision, everything it was based on, and the tokens, so it can be replayed."""
    response = await logging_gateway.chat(model="tiny:short", stream=True)
    await logging_gateway.recorded(1)

    line = lines(logging_gateway, capfdbinary)[0]

    assert line["decision_id"] == response.headers["x-thinkmeter-decision-id"]
    assert (line["tier"], line["requested"], line["reason"]) == ("short", "short", "pinned")
    assert (line["thinking"], line["cap"], line["eligible"]) == (16, 48, ["short"])
    assert list(line["correct"]) == list(line["tokens"]) == ["direct", "short", "medium", "long"]
    assert (line["reasoning_tokens"], line["completion_tokens"]) == (16, 48)
    assert (line["usage"], line["finish_reason"], line["stream"]) == ("backend", "stop", True)
    assert 0 < line["overhead_ms"] < line["first_byte_ms"] <= line["duration_ms"]


async def test_log_never_holds_words_of_prompt_or_answer(
    backend: Backend, capfdbinary: pytest.CaptureFixture[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Access log and metrics contain no text of prompts and answers, even if a backend quotes it."""

    class Broken:
        version = "broken"

        def predict(self, prompt: str, *_: object) -> NoReturn:
            raise KeyError(prompt)

    settings = configuration(backend.url, server={"access_log": True}, retries=0)
    answer = {"id": "x", "choices": [{"index": 0, "message": {"content": MARKER}, "finish_reason": "stop"}]}
    faults = [
        Fault(body=answer),
        Fault(status=400, message=f"1 validation error: input was {MARKER}"),
        Fault(status=400, message=f"maximum context length: {MARKER}"),
        Fault(body=f"half an answer {MARKER}"),
        Fault(body=MARKER, content_type="text/html"),
        Fault(end="cut"),
    ]
    async with serving(settings) as running:
        for fault in faults:
            backend.script(fault)
            await running.chat(MARKER, user=MARKER, metadata={"note": MARKER})
        for stream_fault in (Fault(), Fault(after=2, end="cut"), Fault(after=2, error="broken")):
            backend.script(stream_fault)
            with_error = running.chat(MARKER, stream=True)
            await with_error
        for wrong in ({"messages": MARKER}, {"messages": [{"role": MARKER, "content": 7}]}):
            await running.chat(MARKER, **wrong)
        await ask(running.http, running.url, "/v1/completions", {"model": "tiny", "prompt": MARKER})
        await ask(running.http, running.url, "/v1/embeddings", {"model": "tiny", "input": [MARKER]})
        await ask(
            running.http, running.url, "/v1/route", {"model": "tiny", "messages": [{"content": MARKER}]}
        )
        running.gateway.snapshot.router.predictor = Broken()
        await running.chat(MARKER)
        await running.recorded(len(faults) + 9)
        found, scraped = lines(running, capfdbinary), await running.metrics()

    assert len(found) == len(faults) + 9
    assert MARKER not in json.dumps(found)
    assert MARKER not in str(scraped)
    quiet = [r for r in caplog.records if r.exc_info is None and r.name.startswith("thinkmeter")]
    assert MARKER not in " ".join(record.getMessage() for record in quiet)


async def test_log_injection_is_escaped(
    logging_gateway: Running, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Line breaks sent by a client do not start a new line of the log."""
    await logging_gateway.chat(model='x\n{"status": 200}\n')
    await ask(logging_gateway.http, logging_gateway.url, "/a%0a%7b%7d%0a", method="GET")
    await logging_gateway.recorded(2)

    assert [line["status"] for line in lines(logging_gateway, capfdbinary)] == [404, 404]


async def test_quiet_gateway_writes_no_access_log(
    running: Running, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """With `access_log: false`, standard output stays empty."""
    await running.chat()
    await running.recorded(1)

    assert capfdbinary.readouterr().out == b""


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("abc-123", True),
        ("a" * 128, True),
        ("urn:uuid:0/=+@", True),
        ("a" * 129, False),
        ("with space", False),
        ('quote"d', False),
        ("\xe4", False),
        ("", False),
    ],
)
async def test_request_id(running: Running, backend: Backend, given: str, kept: bool) -> None:
    """A valid request id of the client is kept, else a new one is made; client, backend and log agree."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}
    headers = {"x-request-id": given}
    async with running.http.post(running.url + CHAT, json=body, headers=headers) as response:
        await response.read()
    request_id = response.headers["x-request-id"]

    assert (request_id == given) is kept
    assert re.fullmatch(r"[A-Za-z0-9._:/+=@-]{1,128}", request_id)
    assert backend.requests[-1].headers["x-request-id"] == request_id
    assert running.records[-1].request_id == request_id


async def test_request_ids_differ(running: Running) -> None:
    """Two requests without an id get different ids."""
    assert (await running.chat()).headers["x-request-id"] != (await running.chat()).headers["x-request-id"]
