"""Which headers the gateway forwards in each direction, and the request id that both sides share."""

from __future__ import annotations

import re

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.wire import CHAT, ask, asked, connection, post, post_recorded, wired
from tests.serving import Running, configuration, serving

MADE_UP = re.compile(r"[0-9a-f]{32}")
HEADERS = {
    "tier",
    "tier-requested",
    "reason",
    "difficulty",
    "decision-id",
    "backend",
    "thinking-budget",
    "overhead-ms",
}


async def raw(running: Running, *headers: str, stream: bool = False) -> bytes:
    """The raw response to a request with these header lines."""
    async with connection(running) as (reader, writer):
        writer.write(wired(ask(stream=stream), CHAT, *headers, "connection: close"))
        return await reader.read()


async def test_a_given_request_id_is_kept(running: Running, backend: Backend) -> None:
    """A client's request id is forwarded, returned and recorded."""
    for given in ("abc", "00-trace/span:1.2_3+4=5@6", "x" * 128):
        answer, record = await post_recorded(running, headers={"X-Request-Id": given})

        assert answer.headers["x-request-id"] == given
        assert asked(backend)[-1].headers["x-request-id"] == given
        assert record.request_id == given
        assert answer.json["id"] == f"chatcmpl-{given}"


async def test_a_bad_request_id_is_replaced(running: Running, backend: Backend) -> None:
    """An id that could break a log line or a header is replaced by a new one, the same on both sides."""
    for given in ("", "x" * 129, "two words", 'quo"te', "<script>", "caf\u00e9", "tab\there"):
        answer, record = await post_recorded(running, headers={"X-Request-Id": given})

        assert MADE_UP.fullmatch(answer.headers["x-request-id"])
        assert asked(backend)[-1].headers["x-request-id"] == answer.headers["x-request-id"]
        assert record.request_id == answer.headers["x-request-id"]


async def test_every_response_has_one_request_id(running: Running, backend: Backend) -> None:
    """Every response, including errors, has exactly one request id: the gateway's, not the backend's."""
    backend.default = Fault(headers={"X-Request-Id": "the backend's"})
    seen = set()
    for method, path, body in (
        ("POST", CHAT, ask()),
        ("POST", CHAT, ask(stream=True)),
        ("POST", CHAT, ask(model="nope")),
        ("POST", "/v1/embeddings", {"model": "tiny", "input": "x"}),
        ("GET", CHAT, None),
        ("GET", "/v1/models", None),
        ("GET", "/v1/models/nope", None),
        ("GET", "/healthz", None),
        ("GET", "/nowhere", None),
    ):
        async with running.http.request(method, f"{running.url}{path}", json=body) as response:
            (request_id,) = response.headers.getall("x-request-id")
            assert MADE_UP.fullmatch(request_id)
            seen.add(request_id)

    assert len(seen) == 9


async def test_credentials_and_hops_stay_here(running: Running, backend: Backend) -> None:
    """Neither credentials nor headers of a single connection reach a backend."""
    kept_here = {
        "Authorization": "Bearer sk-client",
        "X-Api-Key": "sk-client",
        "Cookie": "session=1",
        "Proxy-Authorization": "Basic x",
        "TE": "trailers",
        "Keep-Alive": "timeout=5",
        "Trailer": "x",
        "Connection": "x-private, X-Other",
        "X-Private": "1",
        "X-Other": "2",
    }
    answer = await post(running, headers=kept_here | {"Baggage": "3"})

    assert answer.status == 200
    (request,) = asked(backend)
    assert {name.lower() for name in kept_here}.isdisjoint(set(request.headers) - {"connection"})
    assert "private" not in request.headers.get("connection", "")
    assert "sk-client" not in str(request.headers)
    assert request.headers["baggage"] == "3"


async def test_what_the_client_says_of_itself_is_forwarded(running: Running, backend: Backend) -> None:
    """Tracing context, the user agent and OpenAI's own headers are forwarded."""
    passed = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "vendor=1",
        "baggage": "k=v",
        "User-Agent": "my-agent/1.0",
        "Accept": "text/event-stream",
        "OpenAI-Organization": "org-1",
    }
    await post(running, headers=passed)

    sent = asked(backend)[0].headers
    assert {name.lower(): value for name, value in passed.items()}.items() <= sent.items()
    assert sent["content-type"] == "application/json"
    assert sent["host"] == f"127.0.0.1:{backend.port}"
    assert int(sent["content-length"]) == len(asked(backend)[0].body)


async def test_header_bytes_survive(running: Running, backend: Backend) -> None:
    """A header value that is not ASCII reaches the backend as the same bytes."""
    await post(running, headers={"Baggage": "Zo\u00eb \u2603"})

    sent = asked(backend)[0].headers["baggage"].encode("latin-1").decode()
    assert sent == "Zo\u00eb \u2603"


async def test_repeated_headers_are_all_forwarded(running: Running, backend: Backend) -> None:
    """A header that is sent twice arrives with both values."""
    await raw(running, "baggage: one", "baggage: two")

    assert asked(backend)[0].headers["baggage"] == "one, two"


async def test_the_backends_own_key(backend: Backend) -> None:
    """A backend gets the key that is configured for its replica, in health checks as well."""
    replicas = [{"name": "a", "url": backend.url, "api_key": "${BACKEND_KEY}"}]
    settings = configuration(model={"replicas": replicas}, keys=[{"name": "team", "key": "sk-client"}])
    async with serving(settings, {"BACKEND_KEY": "sk-backend"}) as running:
        answer = await post(running, headers={"Authorization": "Bearer sk-client"})
        assert answer.status == 200
        assert "sk-backend" not in str(answer)

    assert {request.headers["authorization"] for request in backend.requests} == {"Bearer sk-backend"}
    assert {request.path for request in backend.requests} == {"/health", "/v1/models", CHAT}


async def test_a_backend_without_a_key_gets_none(running: Running, backend: Backend) -> None:
    """If no key is configured for a replica, its backend gets no Authorization header."""
    await post(running, headers={"Authorization": "Bearer sk-client"})

    assert all("authorization" not in request.headers for request in backend.requests)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_backends_headers_come_back(running: Running, backend: Backend, stream: bool) -> None:
    """The backend's headers reach the client, except for cookies, `Server` and headers of its connection."""
    backend.script(
        Fault(
            headers={
                "X-Engine": "vllm",
                "Cache-Control": "no-cache",
                "Set-Cookie": "spy=1",
                "Connection": "keep-alive, x-hop",
                "X-Hop": "1",
                "Keep-Alive": "timeout=5",
                "Server": "secret/1.0",
            }
        )
    )
    answer = await post(running, ask(stream=stream))

    assert answer.headers["x-engine"] == "vllm"
    assert answer.headers["cache-control"] == "no-cache"
    assert {"set-cookie", "x-hop", "keep-alive"}.isdisjoint(name.lower() for name in answer.headers)
    assert "secret" not in str(dict(answer.headers))
    assert answer.headers["content-type"].startswith("text/event-stream" if stream else "application/json")


@pytest.mark.parametrize("stream", [False, True])
async def test_the_decision_is_shown(running: Running, backend: Backend, stream: bool) -> None:
    """Every response of a model with tiers shows the decision, as it is recorded."""
    answer, record = await post_recorded(running, ask(model="tiny:medium", stream=stream))
    shown = {
        name.lower().removeprefix("x-thinkmeter-"): value
        for name, value in answer.headers.items()
        if name.lower().startswith("x-thinkmeter-")
    }

    assert set(shown) == HEADERS
    decision = record.decision
    assert decision is not None
    assert shown["decision-id"] == decision.id
    assert float(shown["difficulty"]) == round(decision.difficulty, 3)
    assert float(shown["overhead-ms"]) >= 0
    assert (shown["tier"], shown["reason"], shown["backend"]) == ("medium", "pinned", "a")
    assert (shown["tier-requested"], shown["thinking-budget"]) == ("medium", "64")
    assert all(len(answer.headers.getall(name)) == 1 for name in answer.headers)


async def test_embeddings_show_no_tier(running: Running) -> None:
    """An embedding has no tier, so its response shows none."""
    answer = await post(running, {"model": "tiny", "input": "x"}, path="/v1/embeddings")

    assert "x-thinkmeter-tier" not in answer.headers
    assert answer.headers["x-thinkmeter-backend"] == "a"


async def test_framing_is_ours(running: Running, backend: Backend) -> None:
    """A stream is chunked and a whole response has its length, whatever framing the backend uses."""
    backend.script(Fault(body='data: {"choices":[]}\n\ndata: [DONE]\n\n'))
    streamed = await raw(running, stream=True)
    whole = await raw(running)

    head, _, body = whole.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in streamed.lower()
    assert b"content-length" not in streamed.partition(b"\r\n\r\n")[0].lower()
    assert f"content-length: {len(body)}".encode() in head.lower()
    assert b"transfer-encoding" not in head.lower()
