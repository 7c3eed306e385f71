"""No word of a backend's error reaches the access log, the other logs, a trace or the console."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.telemetry.access_log import access_line
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.wire import ask, distinct, post, post_recorded
from tests.serving import configuration, serving

PROMPT = "hunter2"
OBJECT = {"message": PROMPT, "type": PROMPT, "param": PROMPT, "code": PROMPT}
BODIES: list[Any] = [
    {"error": OBJECT},
    {"error": PROMPT},
    {"detail": [{"loc": ["body", PROMPT], "msg": PROMPT, "input": PROMPT}]},
    OBJECT,
    f"<html>{PROMPT}</html>",
    f"{PROMPT}\n2026-11-26 12:00:00,000 WARNING thinkmeter.config: forged",
]
STATUSES = (301, 400, 401, 404, 413, 415, 422, 429, 431, 500, 501, 502, 503, 504)
BROKEN = [
    Fault(body=PROMPT, content_type="text/html"),
    Fault(body=PROMPT, content_type=f"text/{PROMPT}; {PROMPT}"),
    Fault(body=f"half {PROMPT}"),
    Fault(headers={"Retry-After": PROMPT}, status=429),
    Fault(headers={"Server": f"{PROMPT}/1 nginx"}, status=413),
    Fault(headers={"Content-Length": PROMPT}),
]
STREAMED = [
    Fault(after=-1, error=PROMPT, error_code=400),
    Fault(after=-1, error=PROMPT, error_code=429),
    Fault(after=-1, error=PROMPT),
    Fault(after=-1, error=f"EngineCore encountered an issue: {PROMPT}"),
    Fault(after=2, error=PROMPT),
    Fault(body=f'data: {{"error": {PROMPT}}}\n\n'),
]


@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_is_logged(
    backend: Backend, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], stream: bool
) -> None:
    """Whatever the status, and wherever the backend repeats the prompt, operators do not read it."""
    faults = [Fault(status=status, body=body) for status in STATUSES for body in BODIES]
    faults += BROKEN + (STREAMED if stream else [])
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    settings = configuration(backend.url, backend.url) | {"breaker": {"failures": 10_000}}
    settings |= {"server": {"tracing": True}, "failover": {"retry_share": 1}}
    async with serving(settings, span_provider=lambda: provider) as running:
        for fault in faults:
            backend.script(fault, times=2)
            await post(running, distinct(PROMPT, stream=stream))
            backend.clear()
        records = await running.recorded(len(faults))
        shown = json.dumps([repr(running.gateway.console.decisions(0)), running.gateway.console.snapshot()])
    lines = [access_line(record) for record in records]
    spans = [span.to_json() for span in exporter.get_finished_spans()]

    assert len(spans) == len(lines) == len(faults)
    assert [line for line in lines if PROMPT.encode() in line] == []
    assert [span for span in spans if PROMPT in span] == []
    assert PROMPT not in caplog.text
    assert "".join(capfd.readouterr()).count(PROMPT) == 0
    assert PROMPT not in shown


async def test_a_fault_of_the_gateway_is_logged_without_its_text(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected exception may quote a prompt; the log has its type and where it was raised."""

    class Broken:
        version = "broken"

        def predict(self, prompt: str, *_: object) -> None:
            raise KeyError(prompt)

    async with serving(configuration(backend.url)) as running:
        running.gateway.snapshot.router.predictor = Broken()  # type: ignore[assignment]
        answer = await post(running, distinct(PROMPT, model="tiny"))

    assert answer.status == 500
    assert "KeyError" in caplog.text
    assert "in predict" in caplog.text
    assert PROMPT not in caplog.text


async def test_proxy_that_refuses_before_it_has_read_the_body() -> None:
    """nginx answers 413 to the headers alone and closes. The client gets it, and the log says from where."""
    page = b"<html><center>413 Request Entity Too Large</center></html>"

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = "HTTP/1.1 413 Request Entity Too Large\r\nServer: nginx/1.25.3\r\nContent-Type: text/html\r\n"
        writer.write(f"{head}Connection: close\r\nContent-Length: {len(page)}\r\n\r\n".encode() + page)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with serving(configuration(url, health={"failures": 10})) as running:
            (_, replica), *_ = running.gateway.snapshot.backends()
            replica.healthy = True
            answer, record = await post_recorded(running, ask("x" * 900_000))

    assert answer.json["error"]["code"] == "request_too_large"
    line = json.loads(access_line(record))
    assert (line["status"], line["error"]) == (413, "request_too_large")
    assert line["detail"] == f"status 413 from nginx, an HTML page of {len(page)} bytes"
