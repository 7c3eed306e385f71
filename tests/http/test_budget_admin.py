"""The admin API and `thinkmeter budget`: usage per holder, changed caps, top-ups and resets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli.main import cli
from tests.fakes.backend import Backend
from tests.redis import RealRedis, delivered, real_redis
from tests.serving import Running, configuration, serving

pytestmark = pytest.mark.usefixtures("patient_redis")

ADMIN = {"Authorization": "Bearer top-secret"}
BUDGETS = [
    {"name": "everyone", "window": "1m", "tokens": 5_000},
    {"name": "each", "scope": "key", "window": "24h", "tokens": 1_000},
]
KEYS = [{"name": "ann", "key": "ann-secret"}, {"name": "bob", "key": "bob-secret"}]


@pytest.fixture
def redis() -> Iterator[RealRedis]:
    with real_redis() as server:
        yield server


def settings(backend: Backend, redis: RealRedis) -> dict[str, Any]:
    return configuration(
        backend.url,
        redis={"url": redis.url},
        head="baseline",
        budgets=BUDGETS,
        keys=KEYS,
        admin={"key": "top-secret"},
    )


@pytest.fixture
async def gateway(backend: Backend, redis: RealRedis) -> AsyncIterator[Running]:
    async with serving(settings(backend, redis)) as running:
        yield running


async def admin(gateway: Running, method: str, path: str = "", **body: Any) -> dict[str, dict[str, Any]]:
    """The budgets in the response, by `budget/holder`."""
    url = f"{gateway.url}/admin/budgets{path}"
    async with gateway.http.request(method, url, headers=ADMIN, json=body or None) as response:
        assert response.status == 200, await response.text()
        budgets = (await response.json())["budgets"]
    return {f"{item['budget']}/{item['holder']}": item for item in budgets}


async def ask(gateway: Running, name: str, **fields: Any) -> int:
    """Send one chat request with a key, and return the status."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]} | fields
    headers = {"Authorization": f"Bearer {name}-secret"}
    async with gateway.http.post(
        f"{gateway.url}/v1/chat/completions", json=body, headers=headers
    ) as response:
        await response.read()
    await delivered(gateway.gateway.ledger.store)
    return response.status


async def test_who_spends_what(gateway: Running) -> None:
    """Every holder of every budget is listed with its numbers."""
    await ask(gateway, "ann", max_tokens=20)
    budgets = await admin(gateway, "GET")

    assert set(budgets) == {"everyone/*", "each/ann", "each/bob"}
    assert budgets["each/ann"]["settled"] == budgets["everyone/*"]["settled"] == 20
    assert budgets["each/bob"]["settled"] == 0
    assert budgets["each/ann"]["remaining"] == 980
    assert budgets["each/ann"]["requests"] == 1
    assert set(await admin(gateway, "GET", "/each")) == {"each/ann", "each/bob"}
    ann = await admin(gateway, "GET", "/each/ann")
    assert set(ann) == {"each/ann"}
    assert ann["each/ann"]["settled"] == 20


async def test_caps_can_be_set_and_taken_back(gateway: Running) -> None:
    """A cap set through the API takes effect at once, for this holder only, until it is removed."""
    assert (await admin(gateway, "PUT", "/each/ann", tokens=10))["each/ann"]["cap"] == 10
    await ask(gateway, "ann")
    assert await ask(gateway, "ann") == 429
    assert await ask(gateway, "bob") == 200
    assert (await admin(gateway, "DELETE", "/each/ann"))["each/ann"]["cap"] == 1_000
    assert await ask(gateway, "ann") == 200


async def test_top_up_and_reset(gateway: Running) -> None:
    """A top-up adds tokens for the length of one window; a reset clears what was spent."""
    await admin(gateway, "PUT", "/each/ann", tokens=10)
    await ask(gateway, "ann")
    assert (await admin(gateway, "POST", "/each/ann/top-up", tokens=30))["each/ann"]["remaining"] == 30
    await ask(gateway, "ann", max_tokens=30)
    assert await ask(gateway, "ann") == 429
    after = (await admin(gateway, "POST", "/each/ann/reset"))["each/ann"]
    assert (after["settled"], after["cap"]) == (0, 10)
    assert await ask(gateway, "ann") == 200


async def test_names_with_slashes(backend: Backend, redis: RealRedis) -> None:
    """Every route accepts names of budgets and holders that contain slashes."""
    changes = {"budgets": [{"name": "per/team", "scope": "key", "window": "24h", "tokens": 1_000}]}
    keys = {"keys": [{"name": "red/ann", "key": "ann-secret"}]}
    async with serving(settings(backend, redis) | changes | keys) as gateway:
        paths = ("/per/team", "/per/team/red/ann")
        assert [set(await admin(gateway, "GET", path)) for path in paths] == [{"per/team/red/ann"}] * 2
        ann = "per/team/red/ann"
        assert (await admin(gateway, "PUT", f"/{ann}", tokens=10))[ann]["cap"] == 10
        assert (await admin(gateway, "POST", f"/{ann}/top-up", tokens=5))[ann]["cap"] == 15
        assert (await admin(gateway, "POST", f"/{ann}/reset"))[ann]["cap"] == 10
        assert (await admin(gateway, "DELETE", f"/{ann}"))[ann]["cap"] == 1_000


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer ann-secret"}, {"X-Api-Key": "top-secret"}])
async def test_only_the_admin(gateway: Running, headers: dict[str, str]) -> None:
    """No client's key opens the admin API, and the admin's key is not valid for clients."""
    for method, path in (("GET", ""), ("PUT", "/each/ann"), ("POST", "/each/ann/reset")):
        async with gateway.http.request(
            method, f"{gateway.url}/admin/budgets{path}", headers=headers, json={"tokens": 5}
        ) as response:
            assert response.status == 401
    assert await ask(gateway, "top") == 401


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/each/zoe", {"tokens": 5}, 404, "budget_not_found"),
        ("/none/ann", {"tokens": 5}, 404, "budget_not_found"),
        ("/each/ann", {"tokens": 0}, 400, "invalid_value"),
        ("/each/ann", {"tokens": "many"}, 400, "invalid_value"),
        ("/each/ann", {}, 400, "invalid_value"),
    ],
)
async def test_mistakes(gateway: Running, path: str, body: Any, status: int, code: str) -> None:
    """An unknown budget or holder is a 404, a wrong number of tokens a 400."""
    url = f"{gateway.url}/admin/budgets{path}"
    async with gateway.http.put(url, headers=ADMIN, json=body) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (status, code)


async def test_metrics(gateway: Running) -> None:
    """Every scrape shows the current state of the windows."""
    await ask(gateway, "ann", max_tokens=20)
    metrics = await gateway.metrics()
    labels = '{{budget="each",holder="ann",state="{}",window="86400"}}'

    assert metrics["thinkmeter_budget_tokens" + labels.format("settled")] == 20
    assert metrics["thinkmeter_budget_tokens" + labels.format("cap")] == 1_000
    assert metrics["thinkmeter_budget_tokens" + labels.format("reserved")] == 0
    assert metrics['thinkmeter_budget_decisions_total{budget="each",outcome="granted"}'] == 1
    assert metrics["thinkmeter_redis_up"] == 1
    assert metrics['thinkmeter_redis_seconds_count{operation="reserve"}'] >= 1


async def test_command(gateway: Running, backend: Backend, redis: RealRedis, tmp_path: Path) -> None:
    """`thinkmeter budget` shows the same numbers, as JSON and as a table."""
    await ask(gateway, "ann", max_tokens=20)
    config = tmp_path / "gateway.yaml"
    config.write_text(yaml.safe_dump(settings(backend, redis)))
    run = CliRunner().invoke
    result = await asyncio.to_thread(run, cli, ["budget", str(config), "--json"])
    table = await asyncio.to_thread(run, cli, ["budget", str(config)])

    assert result.exit_code == 0
    spent = {(i["budget"], i["holder"]): i["settled"] for i in orjson.loads(result.stdout)}
    assert spent == {("everyone", "*"): 20, ("each", "ann"): 20, ("each", "bob"): 0}
    assert "everyone" in table.stdout
    assert "24h" in table.stdout


def test_command_without_budgets(tmp_path: Path) -> None:
    """With a configuration without budgets, the command fails with status 2."""
    config = tmp_path / "gateway.yaml"
    config.write_text(yaml.safe_dump(configuration("http://127.0.0.1:1", head="baseline")))
    assert CliRunner().invoke(cli, ["budget", str(config)]).exit_code == 2


def test_command_elsewhere(tmp_path: Path) -> None:
    """If the directory has no Redis data, the command names the directory instead of showing zeros."""
    config = tmp_path / "gateway.yaml"
    budgets = [{"name": "b", "window": "1m", "tokens": 10}]
    nowhere = {"directory": str(tmp_path / "nowhere")}
    sections = configuration("http://127.0.0.1:1", head="baseline", budgets=budgets, redis=nowhere)
    config.write_text(yaml.safe_dump(sections))
    result = CliRunner().invoke(cli, ["budget", str(config)])

    assert result.exit_code == 1
    assert str(tmp_path / "nowhere") in result.output.replace("\n", "")
