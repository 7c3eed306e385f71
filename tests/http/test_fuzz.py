"""Whatever is sent: never a 500, never a hang, never a lost slot, and the next request is served."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from tests.fakes.backend import Backend
from tests.http.raw_http import CODES, Answer, address, assert_error
from tests.serving import Running, configuration, serving

CHAT, COMPLETIONS, EMBEDDINGS, ROUTE = ROUTES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/route",
)
SECONDS = 10.0
"""More than any one of these may take on a busy machine; a hang takes longer."""


class Live:
    """A gateway and its backend in a thread of their own, so that blocking clients can talk to them."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),))
        self.running: Running
        self.backend: Backend

    async def _serve(self) -> None:
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        # no answer of the fake may depend on what the fuzz puts into `metadata`
        async with (
            Backend("tiny", light=True) as self.backend,
            serving(configuration(self.backend.url)) as self.running,
        ):
            self._ready.set()
            await self._stop.wait()

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(SECONDS)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(SECONDS)

    def post(self, path: str, body: bytes, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(*address(self.running.url), timeout=SECONDS)
        try:
            connection.request("POST", path, body, {"content-type": "application/json"} | headers)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def assert_serving(self) -> None:
        """Nothing of what came before is left, and an honest request is answered."""
        answer = self.post(CHAT, encoded({}))
        assert (answer.status, answer.headers["x-thinkmeter-backend"]) == (200, "a")
        asyncio.run_coroutine_threadsafe(self._idle(), self._loop).result(SECONDS)

    async def _idle(self) -> None:
        """Wait until no request is under way; a client has its answer a moment before its slot is free."""
        gateway = self.running.gateway
        async with asyncio.timeout(SECONDS / 2):
            while any(backend.in_flight for _, backend in gateway.snapshot.backends()) or (
                gateway.metrics.registry.get_sample_value("thinkmeter_requests_in_flight")
            ):
                await asyncio.sleep(0.001)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    live = Live()
    live.start()
    yield live
    live.stop()


@pytest.fixture(autouse=True)
def nothing_of_ours_failed(live: Live, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test may leave an exception in the log, or a slot taken."""
    yield
    errors = [r for r in caplog.get_records("call") if r.levelno >= logging.ERROR]
    assert [record.getMessage() for record in errors] == []
    live.assert_serving()


def encoded(fields: dict[str, Any], *, without: str | None = None) -> bytes:
    """A request that is good on every route but for these fields."""
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": "tiny", "messages": messages, "prompt": "hello", "input": "hello"} | fields
    return json.dumps({name: value for name, value in body.items() if name != without}).encode()


def assert_fair(answer: Answer, sent: bytes) -> None:
    """Served, or refused as the client's own mistake."""
    assert answer.status == 200 or 400 <= answer.status < 500, (sent[:300], answer)
    if answer.status != 200:
        assert_error(answer, answer.status, answer.code)
        assert answer.code in CODES


GOOD = encoded({})
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
    """A body that is not what it should be is served, or refused as the client's mistake."""
    assert_fair(live.post(path, BODIES[name]), BODIES[name])


READ_FIELDS = {
    "n",
    "model",
    "messages",
    "prompt",
    "prompt_embeds",
    "input",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "best_of",
    "thinking_token_budget",
    "metadata",
    "reasoning_effort",
    "reasoning",
    "thinking",
    "chat_template_kwargs",
    "tools",
}
NESTED_FIELDS = {
    "messages": ["role", "content"],
    "stream_options": ["include_usage", "continuous_usage_stats"],
    "reasoning": ["effort", "max_tokens", "enabled", "exclude"],
    "thinking": ["type", "budget_tokens"],
    "chat_template_kwargs": ["enable_thinking", "thinking", "reasoning_effort", "thinking_budget"],
}
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, -(2**63), 2**63, 2**64, 10**30, 0.5, -0.0, 1e308),
    *(
        "",
        "none",
        "max",
        "\x00",
        "\U0001f600",
        "\u202e",
        [],
        [None],
        [[]],
        [{}],
        {},
        {"a": None},
        {"": {"": []}},
    ),
]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("field", sorted(READ_FIELDS))
def test_odd_value(live: Live, field: str, path: str) -> None:
    """Every kind of value in every field we read, itself or one level down, is served or refused."""
    for value in VALUES:
        nested: list[Any] = [{name: value} for name in NESTED_FIELDS.get(field, [])]
        if field == "messages":
            nested = [
                [message] for message in [*nested, {"role": "user", "content": [{"text": value}, value]}]
            ]
        for odd in (value, *nested):
            for extra in ({}, {"stream": True}):
                body = encoded(extra | {field: odd})
                assert_fair(live.post(path, body), body)


def test_every_field_we_read_is_tried() -> None:
    """The list above does not fall behind the code."""
    from gateway.protocol import ChatBody, CompletionBody, EmbeddingBody

    read = {f for body in (ChatBody, CompletionBody, EmbeddingBody) for f in body.__struct_fields__}

    assert read <= READ_FIELDS


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", [0, -1, -(10**18), 1.5, "7", True, [7]])
def test_bad_limit_is_refused(live: Live, field: str, value: Any) -> None:
    """A limit that is no positive integer is the client's mistake, and `param` names it."""
    answer = live.post(CHAT, encoded({field: value}))

    assert_error(answer, 400, "invalid_value")
    assert answer.json["error"]["param"] == field


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NESTED = sorted({name for names in NESTED_FIELDS.values() for name in names})
ALMOST = st.dictionaries(
    st.sampled_from(sorted(READ_FIELDS)),
    JSON | st.dictionaries(st.sampled_from(NESTED), JSON, max_size=3),
    max_size=5,
).map(lambda fields: encoded({"stream": False} | fields))
FUZZ = settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


@FUZZ
@given(path=st.sampled_from(ROUTES), body=JSON.map(lambda value: json.dumps(value).encode()) | st.binary())
def test_any_body(live: Live, path: str, body: bytes) -> None:
    """Any JSON value, and any bytes, are served or refused."""
    assert_fair(live.post(path, body), body)


@FUZZ
@given(path=st.sampled_from(ROUTES), body=ALMOST)
def test_almost_good_body(live: Live, path: str, body: bytes) -> None:
    """A request with a few odd fields is served or refused."""
    assert_fair(live.post(path, body), body)


@FUZZ
@given(
    headers=st.dictionaries(
        st.sampled_from(["authorization", "x-api-key", "x-request-id", "traceparent", "accept", "x-other"]),
        st.binary(max_size=40).map(lambda value: value.decode("latin-1")),
    )
)
def test_any_header(live: Live, headers: dict[str, str]) -> None:
    """Any header value that HTTP can carry leaves the request served or refused."""
    carried = {n: "".join(c for c in v if c not in "\r\n\0").strip() for n, v in headers.items()}
    answer = live.post(CHAT, GOOD, **carried)

    assert answer.status in (200, 400), answer
    assert answer.headers.get("x-request-id", "none").isprintable()


@pytest.fixture(scope="module")
def operations(live: Live) -> dict[str, Any]:
    """What the gateway says that it serves."""
    schema = schemathesis.openapi.from_url(f"{live.running.url}/openapi.json")
    return {found.ok().label: found.ok() for found in schema.get_all_operations()}


OPERATIONS = [
    *("GET /healthz", "GET /readyz", "GET /metrics", "GET /v1/models", "GET /v1/models/{name}"),
    *("GET /admin/budgets", "GET /admin/budgets/{name}", "GET /admin/budgets/{name}/{holder}"),
    *("PUT /admin/budgets/{name}/{holder}", "DELETE /admin/budgets/{name}/{holder}"),
    *(f"POST /admin/budgets/{{name}}/{{holder}}/{word}" for word in ("top-up", "reset")),
    "GET /console",
    *(f"POST {path}" for path in ROUTES),
]


def test_every_operation_is_tried(operations: dict[str, Any]) -> None:
    """The list above is what the gateway describes."""
    assert set(OPERATIONS) == set(operations) - {"GET /console/events"}  # which never ends


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        *((label, GenerationMode.POSITIVE) for label in OPERATIONS),
        *((f"POST {path}", GenerationMode.NEGATIVE) for path in ROUTES),
    ],
)
def test_own_description(operations: dict[str, Any], label: str, mode: GenerationMode) -> None:
    """Requests made from our own OpenAPI description, good and bad, get no server error and fair refusals."""

    @settings(parent=FUZZ, max_examples=20)
    @given(case=operations[label].as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        response = case.call(timeout=SECONDS)
        case.validate_response(response, checks=[not_a_server_error])
        headers = {name.lower(): values[0] for name, values in response.headers.items()}
        assert_fair(Answer(response.status_code, headers, response.content), b"")

    run()
