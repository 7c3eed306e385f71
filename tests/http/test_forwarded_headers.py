"""Which headers pass through the gateway, in either direction."""

from __future__ import annotations

import pytest

from gateway.config.loader import ConfigError
from gateway.http.headers import FORWARDED, SCHEDULING, forwarded, passing, returned
from tests.fakes.backend import Backend
from tests.http.raw_http import ask
from tests.making import settings
from tests.serving import configuration, serving

CHAT = "/v1/chat/completions"
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}

HOP_BY_HOP = "connection keep-alive te trailer transfer-encoding upgrade".split()
PROXIES = "proxy-authenticate proxy-authorization proxy-connection".split()


@pytest.mark.parametrize("name", [*HOP_BY_HOP, *PROXIES, "host", "content-length", "expect"])
def test_hop_by_hop_headers_stay(name: str) -> None:
    """Headers about one connection pass in neither direction."""
    assert passing([(name.encode(), b"x")], FORWARDED | SCHEDULING) == []
    assert returned([(name.encode(), b"x")]) == []


@pytest.mark.parametrize(
    "name",
    "authorization x-api-key api-key cookie forwarded x-forwarded-for x-vllm-priority "
    "x-data-parallel-rank x-session-id x-unknown accept-encoding".split(),
)
def test_only_allowed_headers_pass(name: str) -> None:
    """Credentials, proxies' headers, headers that schedule and unknown ones stay at the gateway."""
    accept = (b"accept", b"*/*")
    assert passing([(name.encode(), b"s3cret"), accept], FORWARDED) == [accept]


@pytest.mark.parametrize("name", [b"set-cookie", b"server", b"date", b"x-request-id"])
def test_backend_does_not_speak_for_the_gateway(name: bytes) -> None:
    """Cookies, and headers that the gateway sets itself, are not returned."""
    assert returned([(name, b"x")]) == []


def test_connection_names_more() -> None:
    """Headers that `Connection` declares to be hop-by-hop do not pass, in either direction."""
    headers = [
        (b"connection", b"X-One , keep-alive"),
        (b"x-one", b"1"),
        (b"connection", b"x-two"),
        (b"x-two", b"2"),
    ]

    allowed = {b"x-one", b"x-two", b"x-three"}
    assert passing([*headers, (b"x-three", b"3")], allowed) == [(b"x-three", b"3")]
    assert returned([*headers, (b"x-three", b"3")]) == [(b"x-three", b"3")]


def test_values_are_unchanged() -> None:
    """What passes keeps its values, including bytes above ASCII; a response keeps its unknown headers."""
    headers = [(b"traceparent", b"00-ab"), (b"x-name", "é".encode("latin-1")), (b"x-name", b"\xff")]

    assert passing(headers, {b"traceparent", b"x-name"}) == headers
    assert returned([(b"content-type", b"text/plain"), (b"x-a", b"1"), (b"x-a", b"2")]) == [
        (b"content-type", b"text/plain"),
        (b"x-a", b"1"),
        (b"x-a", b"2"),
    ]


def test_ours_replace_theirs() -> None:
    """A header of the gateway replaces the client's header of the same name, in any case."""
    client = [(b"x-request-id", b"theirs"), (b"content-type", b"text/plain"), (b"accept-encoding", b"gzip")]
    ours = [(b"Content-Type", b"application/json"), (b"X-Request-Id", b"ours")]

    assert forwarded(passing(client, {b"x-request-id", b"content-type"}), ours) == ours


KEYS = [{"name": "interns", "key": "sk-i"}, {"name": "batch", "key": "sk-b", "scheduling": True}]
HEADERS = {
    "x_vllm_priority": "-9",
    "x_data_parallel_rank": "0",
    "api_key": "s",
    "x_team": "a",
    "x_other": "1",
}


async def test_scheduling_belongs_to_the_operator(backend: Backend) -> None:
    """Only a key with `scheduling` places its requests; the operator's own headers pass for all."""
    async with serving(configuration(backend.url, keys=KEYS, forward_headers=["X-Team"])) as running:
        for secret in ("sk-i", "sk-b"):
            answer = await ask(running.http, running.url, CHAT, BODY, x_api_key=secret, **HEADERS)
            assert answer.status == 200

    ours = {"x-vllm-priority", "x-data-parallel-rank", "api-key", "x-team", "x-other", "x-api-key"}
    interns, batch = [ours & set(r.headers) for r in backend.requests if r.path == CHAT]
    assert interns == {"x-team"}
    assert batch == {"x-team", "x-vllm-priority", "x-data-parallel-rank"}


async def test_everybody_may_schedule_if_the_operator_says_so(backend: Backend) -> None:
    """With `client_scheduling: keep`, the headers pass from every client."""
    async with serving(configuration(backend.url, client_scheduling="keep")) as running:
        await ask(running.http, running.url, CHAT, BODY, **HEADERS)

    sent = backend.requests[-1].headers
    assert (sent["x-vllm-priority"], sent["x-data-parallel-rank"]) == ("-9", "0")
    assert "api-key" not in sent


@pytest.mark.parametrize("name", ["Authorization", "cookie", "Host", "x-request-id", "two words", "", "x:y"])
def test_header_that_never_passes(name: str) -> None:
    """The operator cannot let credentials, hop-by-hop headers, or something that is no header pass."""
    with pytest.raises(ConfigError, match="forward_headers"):
        settings(forward_headers=[name])
