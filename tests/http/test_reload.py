"""A changed configuration takes effect without a restart; an invalid one is refused and the old one stays."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from gateway.config.loader import parse
from gateway.snapshot import Snapshot
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.raw_http import ask, assert_error, connect, post, read_response
from tests.http.wire import asked
from tests.serving import Process, Running, configuration, process, serving

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
SECONDS = 20.0


def write(folder: Path, settings: Any) -> None:
    """Replace the configuration as an editor does: a new file under the old name."""
    new = folder / "new.yaml"
    new.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings))
    new.replace(folder / "gateway.yaml")


async def reloads(http: aiohttp.ClientSession, running: Process, result: str) -> float:
    answer = await ask(http, running.url, "/metrics", method="GET")
    name = f'thinkmeter_config_reloads_total{{result="{result}"}} '
    samples = [line for line in answer.body.decode().splitlines() if line.startswith(name)]
    return float(samples[0].removeprefix(name)) if samples else 0


async def reloaded(
    http: aiohttp.ClientSession, running: Process, result: str, times: int, *, signalled: bool = True
) -> None:
    """Send SIGHUP if `signalled`, and wait until the gateway has counted `times` reloads with this result."""
    if signalled:
        running.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(SECONDS):
        while await reloads(http, running, result) < times:
            await asyncio.sleep(0.02)


async def test_sighup_and_file_change(backend: Backend, tmp_path: Path, free_port: int) -> None:
    """The gateway reloads after SIGHUP and after a change of the file; an invalid file changes nothing."""
    settings = configuration(backend.url, price=0.0)
    async with process(settings, tmp_path, port=free_port) as running, aiohttp.ClientSession() as http:

        async def tier() -> str:
            answer = await ask(http, running.url, CHAT, BODY)
            return answer.headers["x-thinkmeter-tier"]

        assert await tier() == "long"

        write(tmp_path, settings | {"price": 1000.0})
        await reloaded(http, running, "taken", 1)
        assert await tier() == "direct"

        write(tmp_path, settings | {"rules": [{"name": "all", "tier": "medium"}]})
        await reloaded(http, running, "taken", 2, signalled=False)
        assert await tier() == "medium"

        for count, bad in enumerate(("models: [", "", "models: {}\nprice: -1\n", "\x00", "[]"), 1):
            write(tmp_path, bad)
            await reloaded(http, running, "refused", count)
            assert await tier() == "medium"
        (tmp_path / "gateway.yaml").unlink()
        await reloaded(http, running, "refused", 6)
        assert await tier() == "medium"

        write(tmp_path, settings | {"rules": [{"name": "all", "tier": "short"}]})
        await reloaded(http, running, "taken", 3)
        assert await tier() == "short"

        log = running.log.read_text()
    assert "configuration refused, the old one stays" in log
    assert "line 1" in log
    assert log.count("configuration reloaded") == 3


async def test_stream_survives_a_reload(backend: Backend, tmp_path: Path, free_port: int) -> None:
    """A stream whose model a reload removes still completes; the next request uses the new file."""
    settings = configuration(backend.url)
    backend.script(Fault(pace_ms=20, tokens=25, reasoning=0))
    async with process(settings, tmp_path, port=free_port) as running, aiohttp.ClientSession() as http:
        async with http.post(running.url + CHAT, json=BODY | {"stream": True}) as response:
            received = await response.content.readany()
            renamed = settings | {"models": {"other": settings["models"]["tiny"] | {"served_name": "tiny"}}}
            write(tmp_path, renamed)
            await reloaded(http, running, "taken", 1)
            assert_error(await ask(http, running.url, CHAT, BODY), 404, "model_not_found")
            received += await response.content.read()

        assert received.endswith(b"data: [DONE]\n\n")
        assert (await ask(http, running.url, CHAT, BODY | {"model": "other"})).status == 200


def snapshot_of(settings: dict[str, Any]) -> Snapshot:
    return Snapshot.build(parse(yaml.safe_dump(settings), {}), "changed")


async def sent_in_two(running: Running, path: str, between: Callable[[], None]) -> int:
    """Send a request in two parts, call `between` in between, and return the status."""
    async with connect(running.url) as (reader, writer):
        request = post(path, json.dumps(BODY).encode())
        writer.write(request[:-10])
        async with asyncio.timeout(SECONDS):
            while not running.gateway.metrics.registry.get_sample_value("thinkmeter_requests_in_flight"):
                await asyncio.sleep(0.001)
        between()
        writer.write(request[-10:])
        return (await read_response(reader)).status


@pytest.mark.parametrize("path", [CHAT, "/v1/route"])
async def test_model_taken_away_while_the_body_arrives(running: Running, backend: Backend, path: str) -> None:
    """A request keeps the configuration that it began with, even if its body arrives after the reload."""
    settings = configuration(backend.url)
    changed = snapshot_of(settings | {"models": {"other": settings["models"]["tiny"]}})

    assert await sent_in_two(running, path, lambda: running.gateway.reload(changed)) == 200

    assert (await running.chat()).status == 404


async def test_reservation_follows_the_configuration_a_request_began_with(
    backend: Backend, tmp_path: Path
) -> None:
    """New `reservations` apply from the next request on, not to a request whose body is arriving."""
    budget = {"name": "b", "scope": "global", "window": "1m", "tokens": 100_000}
    settings = configuration(
        backend.url,
        model={"tiers": {"direct": {"thinking": 0, "answer": None}, "long": {"thinking": 9, "answer": None}}},
        budgets=[budget],
        reservations={"longest_answer": 100},
        price=1000.0,
        redis={"directory": str(tmp_path)},
    )
    changed = snapshot_of(settings | {"reservations": {"longest_answer": 5000}})
    async with serving(settings) as running:
        assert await sent_in_two(running, CHAT, lambda: running.gateway.reload(changed)) == 200
        assert (await running.chat()).status == 200

        caps = [request.json["max_completion_tokens"] for request in backend.requests if request.path == CHAT]
        assert caps == [100, 5000]


async def test_replicas_that_stay_keep_their_state(backend: Backend) -> None:
    """A replica keeps health, load and breaker over a reload; new replicas are added, others removed."""
    async with Backend("tiny") as second:
        settings = configuration(backend.url, retries=0)
        async with serving(settings) as running:
            kept = running.gateway.snapshot.backends()[0][1]
            kept.breaker.opened_at = time.monotonic()

            running.gateway.reload(snapshot_of(configuration(backend.url, second.url, retries=0)))

            names = [b.name for _, b in running.gateway.snapshot.backends()]
            assert names == ["a", "b"]
            assert running.gateway.snapshot.backends()[0][1] is kept
            for _ in range(3):
                assert (await running.chat()).headers["x-thinkmeter-backend"] == "b"
            metrics = await running.metrics()
            assert metrics['thinkmeter_backend_breaker_state{backend="a",model="tiny"}'] == 2

            running.gateway.reload(snapshot_of(configuration(second.url)))

            metrics = await running.metrics()
            # this `a` has another URL, so it is a new replica and not checked yet
            assert metrics['thinkmeter_backend_up{backend="a",model="tiny"}'] == 0
            await running.gateway.health.check()
            assert (await running.chat()).headers["x-thinkmeter-backend"] == "a"
            assert len(second.requests) > 3


async def test_keys_and_limits_of_the_new_file(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """New keys apply from the next request on; a warning says that new `limits` need a restart."""
    async with serving(configuration(backend.url)) as running:
        assert (await running.chat()).status == 200

        keys = [{"name": "a", "key": "sk-a"}]
        changed = configuration(backend.url, keys=keys, limits={"body_bytes": 10})
        running.gateway.reload(snapshot_of(changed))

        assert (await running.chat()).status == 401
        async with running.client("sk-a") as client:
            assert (await client.models.list()).data
        answer = await ask(running.http, running.url, CHAT, BODY, x_api_key="sk-a")
        assert answer.status == 200
    assert "a change of `limits` takes effect at the next start" in caplog.text


async def test_only_settings_read_at_start_ask_for_a_restart(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """Of `reservations`, only a new lease needs a restart; everything else takes effect at once."""
    settings = configuration(backend.url)
    async with serving(settings) as running:
        at_once = {"shortest_answer": 99, "longest_answer": 999, "local_share": 0.5}
        running.gateway.reload(snapshot_of(settings | {"reservations": at_once}))
        assert "next start" not in caplog.text

        running.gateway.reload(snapshot_of(settings | {"reservations": {"lease": 20}}))
        assert "a change of `reservations.lease` takes effect at the next start" in caplog.text


async def test_queue_outlives_a_reload(backend: Backend, tmp_path: Path) -> None:
    """A waiting request waits as long as the configuration says that it began with."""
    backend.script(Fault(delay_ms=4_000, status=400))  # refused, so its tokens come back
    budget = {"name": "b", "window": "1m", "tokens": 60}
    redis = {"directory": str(tmp_path)}
    sections = {"budgets": [budget], "reservations": {"shortest_answer": 16}, "price": 0, "redis": redis}
    settings = configuration(backend.url, **sections, queue={"seconds": 60})
    async with serving(settings) as running:
        first = asyncio.create_task(running.chat("a", max_tokens=50))
        await backend.wait_until(asked)
        second = asyncio.create_task(running.chat("b", max_tokens=20))
        queued = 'thinkmeter_budget_decisions_total{budget="b",outcome="queued"}'
        async with asyncio.timeout(SECONDS):
            while queued not in await running.metrics():
                await asyncio.sleep(0.01)

        running.gateway.reload(snapshot_of(settings | {"queue": {"seconds": 0}}))

        assert (await running.chat("c", max_tokens=20)).status == 429
        assert (await first).status == 400
        assert (await second).status == 200
