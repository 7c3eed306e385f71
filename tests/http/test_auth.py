"""API keys: who may use the gateway, what each key allows, and that no secret is ever shown."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli.main import cli
from gateway.config.access import key_digest
from gateway.config.loader import ConfigError, parse
from tests.fakes.backend import Backend
from tests.http.raw_http import ask, assert_error, exchange, post
from tests.serving import Running, configuration, process, serving

ALPHA, BETA, GAMMA, REPLICA = "sk-alpha-5ecret", "sk-beta-5ecret", "sk-gamma-5ecret", "sk-replica-5ecret"
CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
REQUESTS: dict[str, Any] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "tiny", "prompt": "hello"},
    "/v1/embeddings": {"model": "tiny", "input": "hello"},
    "/v1/route": CHAT,
}


def locked(url: str, **changes: Any) -> dict[str, Any]:
    """Settings with two models and three keys with different rights."""
    settings = configuration(url, model={"served_name": "tiny"}, **changes)
    models = settings["models"]
    replica = {"name": "a", "url": url, "api_key": REPLICA}
    models["tiny"] |= {"replicas": [replica]}
    models["other"] = models["tiny"] | {"replicas": [{"name": "o", "url": url}]}
    return settings | {
        "keys": [
            {"name": "alpha", "key": ALPHA},
            {"name": "beta", "hash": key_digest(BETA), "models": ["tiny"], "ceiling": "short"},
            {"name": "gamma", "key": GAMMA, "floor": "medium"},
        ]
    }


@pytest.fixture
async def guarded(backend: Backend) -> AsyncIterator[Running]:
    """A gateway that requires keys."""
    async with serving(locked(backend.url)) as gateway:
        yield gateway


async def protected(running: Running) -> list[tuple[str, str]]:
    """Every method and path under /v1, from the gateway's own OpenAPI description."""
    described = await ask(running.http, running.url, "/openapi.json", method="GET")
    paths = described.json["paths"].items()
    routes = [(method.upper(), path) for path, methods in paths for method in methods if "/v1/" in path]
    return [(method, path.replace("{name}", "tiny")) for method, path in routes]


async def test_every_route_under_v1_asks_for_a_key(guarded: Running, backend: Backend) -> None:
    """Without a valid key, a request gets an OpenAI 401 with WWW-Authenticate and is not forwarded."""
    routes = await protected(guarded)
    before = len(backend.requests)

    for method, path in routes:
        for headers in ({}, {"authorization": "Bearer sk-wrong"}, {"x_api_key": "sk-wrong"}):
            answer = await ask(guarded.http, guarded.url, path, REQUESTS.get(path), method=method, **headers)
            assert_error(answer, 401, "invalid_api_key")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["x-request-id"]

    assert {*REQUESTS, "/v1/feedback", "/v1/models", "/v1/models/tiny"} == {path for _, path in routes}
    assert before == len(backend.requests)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_operations_are_open(guarded: Running, path: str) -> None:
    """Health and metrics need no key, because probes and scrapers have none."""
    assert (await ask(guarded.http, guarded.url, path, method="GET")).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {ALPHA}"},
        {"authorization": f"bearer  {ALPHA} "},
        {"x_api_key": ALPHA},
        {"authorization": "Basic dXNlcjpwYXNz", "x_api_key": ALPHA},
        {"authorization": f"Bearer {BETA}"},
    ],
    ids=["bearer", "any case and spaces", "x-api-key", "beside another scheme", "configured as a hash"],
)
async def test_key_is_accepted(guarded: Running, headers: dict[str, str]) -> None:
    """A known key works on every route, in `Authorization` as well as in `X-Api-Key`."""
    for path, body in REQUESTS.items():
        assert (await ask(guarded.http, guarded.url, path, body, **headers)).status == 200
    assert (await ask(guarded.http, guarded.url, "/v1/models", method="GET", **headers)).status == 200


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        f"Basic {ALPHA}",
        ALPHA,
        "Bearer \xff\xfe\x80",
        "Bearer " + "k" * 30_000,
        f"Bearer {ALPHA}x",
        f"Bearer {ALPHA[:-1]}",
        f"Bearer {key_digest(BETA)}",
    ],
    ids=["no secret", "blank", "scheme", "bare", "not text", "long", "longer", "shorter", "the hash itself"],
)
async def test_odd_credentials_are_refused(guarded: Running, header: str) -> None:
    """Anything that is not exactly a known secret gets a 401, and never crashes the request."""
    answer = await exchange(guarded.url, post("/v1/chat/completions", b"{}", f"authorization: {header}"))

    assert_error(answer, 401, "invalid_api_key")


async def test_wrong_key_is_refused_before_a_large_body_is_read(guarded: Running) -> None:
    """A client with a wrong key and a large prompt sees the 401, not a broken connection."""
    large = CHAT | {"messages": [{"role": "user", "content": "x" * 4_000_000}]}

    async with guarded.client("sk-wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(**large)


async def test_key_limits_the_models(guarded: Running) -> None:
    """A key with a list of models gets a 403 for other models, and does not see them in the list."""
    for path, body in REQUESTS.items():
        answer = await ask(guarded.http, guarded.url, path, body | {"model": "other"}, x_api_key=BETA)
        assert_error(answer, 403, "model_not_allowed")
        assert answer.json["error"]["param"] == "model"
    card = await ask(guarded.http, guarded.url, "/v1/models/other:long", method="GET", x_api_key=BETA)
    assert_error(card, 403, "model_not_allowed")

    listed = await ask(guarded.http, guarded.url, "/v1/models", method="GET", x_api_key=BETA)
    everything = await ask(guarded.http, guarded.url, "/v1/models", method="GET", x_api_key=ALPHA)

    tiers = ["", ":direct", ":short", ":medium", ":long"]
    assert {f"tiny{tier}" for tier in tiers} == {card["id"] for card in listed.json["data"]}
    assert {f"{m}{t}" for m in ("tiny", "other") for t in tiers} == {c["id"] for c in everything.json["data"]}


async def test_key_has_a_ceiling(guarded: Running, backend: Backend) -> None:
    """Neither a pinned tier nor a client's limits take a request above its key's ceiling."""
    for fields in ({"model": "tiny:long"}, {"thinking_token_budget": 256, "reasoning_effort": "max"}):
        answer = await ask(guarded.http, guarded.url, "/v1/chat/completions", CHAT | fields, x_api_key=BETA)
        assert answer.headers["x-thinkmeter-tier"] in ("direct", "short")
        assert backend.requests[-1].json.get("thinking_token_budget", 0) <= 16
    pinned = await ask(
        guarded.http, guarded.url, "/v1/chat/completions", CHAT | {"model": "tiny:long"}, x_api_key=BETA
    )
    assert pinned.headers["x-thinkmeter-tier"] == "short"
    assert pinned.headers["x-thinkmeter-reason"] == "key_ceiling"


async def test_key_has_a_floor(guarded: Running, backend: Backend) -> None:
    """A key's guaranteed minimum holds, however little the client asks for."""
    for fields in (
        {"model": "tiny:direct"},
        {"reasoning_effort": "none"},
        {"thinking": {"type": "disabled"}},
    ):
        answer = await ask(guarded.http, guarded.url, "/v1/chat/completions", CHAT | fields, x_api_key=GAMMA)
        assert answer.headers["x-thinkmeter-tier"] == "medium"
        assert answer.headers["x-thinkmeter-reason"] == "key_floor"
        assert backend.requests[-1].json["thinking_token_budget"] == 64


async def test_credentials_stay_here(guarded: Running, backend: Backend) -> None:
    """The client's key is not forwarded; the replica gets the key that is configured for it."""
    for headers in ({"x_api_key": ALPHA}, {"authorization": f"Bearer {ALPHA}"}):
        await ask(guarded.http, guarded.url, "/v1/chat/completions", CHAT, **headers)

        sent = backend.requests[-1].headers
        assert f"Bearer {REPLICA}" == sent["authorization"]
        assert ALPHA not in str(sent)


async def test_keys_from_the_environment(backend: Backend) -> None:
    """THINKMETER_API_KEYS adds keys to those of the file. On its own it is enough to require keys."""
    environ = {"THINKMETER_API_KEYS": f"delta={ALPHA}, epsilon={BETA}"}
    async with serving(configuration(backend.url), environ) as running:
        assert (await running.chat()).status == 401
        async with running.client(ALPHA) as client:
            assert (await client.models.list()).data
        async with running.client(BETA) as client:
            assert (await client.models.list()).data
            await client.embeddings.create(model="tiny", input="hello")
        assert running.records[-1].key == "epsilon"
    settings = parse(yaml.safe_dump(locked(backend.url)), {"THINKMETER_API_KEYS": "delta=sk-delta"})
    assert [key.name for key in settings.keys] == ["alpha", "beta", "gamma", "delta"]


@pytest.mark.parametrize(
    ("environ", "keys"),
    [
        ("no-equals-5ecret", []),
        ("alpha=5ecret", [{"name": "alpha", "key": "other-5ecret"}]),
        ("delta=5ecret", [{"name": "alpha", "key": "5ecret"}]),
        ("", [{"name": "bad name!", "key": "5ecret"}]),
        ("", [{"name": "a", "key": "5ecret", "hash": key_digest("5ecret")}]),
        ("", [{"name": "a", "key": ["5ecret"]}]),
        ("", [{"name": "a", "key": "5ecret", "floor": "huge"}]),
        ("", [{"name": "a", "key": "5ecret", "ky": "5ecret"}]),
    ],
    ids=["no =", "same name", "same secret", "bad name", "key and hash", "list", "bad floor", "unknown"],
)
def test_bad_keys_are_refused_without_showing_them(environ: str, keys: list[Any]) -> None:
    """A mistake in a key's settings is reported with its place, but never with the secret."""
    settings = yaml.safe_dump(configuration("http://127.0.0.1:1") | {"keys": keys})

    with pytest.raises(ConfigError) as refused:
        parse(settings, {"THINKMETER_API_KEYS": environ})

    assert refused.value.problems
    assert "5ecret" not in str(refused.value)


async def test_open_mode_warns(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """A gateway without keys warns at start; a gateway with keys does not."""
    with caplog.at_level(logging.WARNING, "thinkmeter"):
        async with serving(locked(backend.url)):
            assert "no API keys" not in caplog.text
        async with serving(configuration(backend.url)) as running:
            assert caplog.text.count("no API keys are configured") == 1
            assert (await running.chat()).status == 200


async def test_secret_is_seen_nowhere(
    backend: Backend, tmp_path: Path, free_port: int, guarded: Running
) -> None:
    """No key, valid or wrong, appears in settings, `check`, logs, metrics, listings or errors."""
    settings = locked(backend.url) | {"server": {"access_log": True}}
    loaded = parse(yaml.safe_dump(settings), {})
    seen = [repr(loaded), str(loaded), loaded.model_dump_json(), repr(loaded.keys[0].__dict__)]
    async with process(settings, tmp_path, port=free_port) as running:
        for key in (ALPHA, BETA, "sk-wrong-5ecret"):
            for path, body in REQUESTS.items():
                seen.append(str(await ask(guarded.http, running.url, path, body, x_api_key=key)))
            for path in ("/v1/models", "/metrics", "/openapi.json", "/readyz"):
                answer = await ask(guarded.http, running.url, path, method="GET", x_api_key=key)
                seen.append(str(answer))
        await backend.down()
        seen.append(str(await ask(guarded.http, running.url, "/v1/embeddings", CHAT, x_api_key=ALPHA)))
        running.process.terminate()
        await running.process.wait()
        seen += [running.log.read_text(), running.access_log.read_text()]
    checked = CliRunner().invoke(cli, ["check", str(tmp_path / "gateway.yaml")])
    seen.append(checked.output)

    assert checked.exit_code == 0
    assert [text for text in seen if "5ecret" in text] == []
    assert '"status":401' in seen[-2] and '"key":"alpha"' in seen[-2]
