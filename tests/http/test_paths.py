"""Paths have one spelling, so that the rules of a balancer hold."""

from __future__ import annotations

import pytest

from gateway.http.paths import no_route, plain_path
from tests.fakes.backend import Backend
from tests.http.raw_http import BODY, assert_error, connect, exchange, post
from tests.http.wire import ask, asked
from tests.serving import Running, configuration, serving


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/metrics", 200),
        ("/%6detrics", 404),
        ("/metric%73", 404),
        ("/%2Fmetrics", 404),
        ("http://x/%6detrics", 404),
        ("//metrics", 404),
        ("/./metrics", 404),
        ("/v1/../metrics", 404),
        ("/metrics?name=%6d", 200),
        ("/healt%68z", 404),
        ("/%61dmin/budgets", 404),
        ("/admin%2Fbudgets", 404),
        ("/admin/%62udgets", 404),
        ("/admin/budgets/none/b%20c", 404),
        ("/admin/budgets/each/a%6en", 503),  # found, but there is no Redis
        ("/v1/models/t%69ny", 200),
        ("/v1/models/tiny%3Ashort", 200),
        ("/v1/model%73", 404),
    ],
)
async def test_escapes_only_in_names(backend: Backend, target: str, status: int) -> None:
    """%-escapes are accepted only in the names of models, budgets and holders."""
    settings = configuration(
        backend.url,
        admin={"key": "k"},
        keys=[{"name": "ann", "key": "k2"}],
        budgets=[{"name": "each", "scope": "key", "window": "1m", "tokens": 100}],
        redis={"url": "redis://127.0.0.1:1"},
    )
    key = "k2" if "/v1/" in target else "k"
    async with serving(settings) as running, connect(running.url) as (reader, writer):
        head = f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        response = await reader.read()

    assert int(response.split(b" ", 2)[1]) == status
    assert (b"thinkmeter_build_info" in response) is (target.startswith("/metrics"))


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("/v1/models", "/v1/models"),
        ("/v1/models/", "/v1/models"),
        ("/v1/models///", "/v1/models"),
        ("//v1/models", "/v1/models"),
        ("/v1//chat/completions", "/v1/chat/completions"),
        ("///v1//models/", "/v1/models"),
        ("/v1/models/org//name", "/v1/models/org//name"),
        ("//v1/models/org//name", "/v1/models/org//name"),
        ("/health/", "/health"),
        ("/", "/"),
        ("//", "/"),
        ("*", "*"),
        ("//metrics", "//metrics"),
        ("//v1", "//v1"),
        ("/x//v1/models", "/x//v1/models"),
        ("//v10/models", "//v10/models"),
    ],
)
def test_plain_path(path: str, plain: str) -> None:
    """A slash too many in a base URL does no harm; other paths keep their one spelling."""
    assert plain_path(path) == plain


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/completions", "/v1/completions"),
        ("/models", "/v1/models"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/v1/embeddings", "/v1/embeddings"),
        ("/v1/tokenize", "/tokenize"),
        ("/v2/chat/completions", None),
        ("/", None),
        ("/v1/responses", None),
    ],
)
async def test_unknown_path(running: Running, path: str, meant: str | None) -> None:
    """A 404 names the path that a wrong base URL missed, or what there is."""
    answer = await exchange(running.url, post(path, BODY))

    assert_error(answer, 404, "route_not_found")
    message = answer.json["error"]["message"]
    assert (f"Use {meant}." in message) if meant else ("The gateway serves /v1/chat/completions," in message)
    assert ("base URL" in message) is (meant is not None and meant.startswith("/v1"))
    assert len(no_route("/" * 100_000, ["/v1/models"])) < 1_000


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "//v1/chat/completions", "/v1//chat/completions"])
async def test_slashes_lose_no_body(running: Running, backend: Backend, path: str) -> None:
    """A request with a slash too many is served as without, and not redirected."""
    answer = await exchange(running.url, post(path, BODY))

    assert (answer.status, running.records[0].route) == (200, "/v1/chat/completions")
    assert asked(backend)[0].path == "/v1/chat/completions"


async def test_name_with_slashes_and_colons(backend: Backend) -> None:
    """A model's name may have slashes and colons, in its card too, escaped or not."""
    settings = configuration(backend.url)
    name = "org/name/v1"
    settings["models"] = {name: settings["models"]["tiny"] | {"served_name": "tiny"}}
    async with serving(settings) as running:
        for path in (name, "org%2Fname%2Fv1%3Ashort", f"{name}:short", f"{name}/"):
            async with connect(running.url) as (reader, writer):
                writer.write(f"GET /v1/models/{path} HTTP/1.0\r\n\r\n".encode())
                assert b" 200 OK" in await reader.read()
        assert (await running.chat(model=f"{name}:short")).status == 200


async def test_readiness_at_the_paths_of_other_servers(backend: Backend) -> None:
    """Scripts that wait for vLLM ask /health; it says what /readyz says, and no success is logged."""
    async with serving(configuration(backend.url)) as running:
        for path in ("/health", "/ping", "/health/"):
            async with running.http.get(running.url + path) as response:
                assert (response.status, await response.json()) == (200, {"status": "ready"})
        running.gateway.drain()
        async with running.http.get(f"{running.url}/health") as response:
            assert (response.status, await response.json()) == (503, {"status": "draining"})


async def test_tokenizer_routes(backend: Backend) -> None:
    """Tokenization passes through to the model's replica under its served name, and costs no tokens."""
    settings = configuration(
        backend.url,
        model={"served_name": "tiny", "replicas": [{"url": backend.url}]},
        keys=[{"name": "ann", "key": "k"}, {"name": "few", "key": "f", "models": []}],
        budgets=[{"name": "all", "scope": "global", "window": "1m", "tokens": 1, "count": "total"}],
        redis={"url": "redis://127.0.0.1:1"},
    )
    async with serving(settings) as running:
        for headers, status in (("k", 200), ("wrong", 401), ("f", 403)):
            body = ask("x" * 100, add_generation_prompt=False)
            async with running.http.post(
                f"{running.url}/tokenize", json=body, headers={"X-Api-Key": headers}
            ) as response:
                assert response.status == status
                assert ("count" in await response.json()) is (status == 200)
        back = {"model": "tiny", "tokens": [1, 2]}
        async with running.http.post(
            f"{running.url}/detokenize/", json=back, headers={"X-Api-Key": "k"}
        ) as response:
            assert await response.json() == {"prompt": "detokenized"}
        metrics = await running.metrics()

    (sent,) = [request for request in backend.requests if request.path == "/tokenize"]
    assert sent.json == body | {"model": "tiny"}
    assert not [name for name in metrics if name.startswith("thinkmeter_usage_total")]
