"""Metrics change with the traffic, and their labels are bounded."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gateway import __version__
from gateway.config.loader import parse
from gateway.config.settings import Settings
from gateway.snapshot import Snapshot
from gateway.telemetry.metrics import Metrics
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.serving import Running, configuration, serving

CHAT = "/v1/chat/completions"
MARKER = "m4rker"


async def scrape(running: Running) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of /metrics, by its name and sorted labels. Fails if the format is not valid."""
    async with running.http.get(f"{running.url}/metrics") as response:
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        text = await response.text()
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation for family in families)
    samples = [sample for family in families for sample in family.samples]
    found = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}
    assert len(found) == len(samples)
    return found


async def sample(running: Running, name: str, **labels: str) -> float | None:
    return (await scrape(running)).get((f"thinkmeter_{name}", tuple(sorted(labels.items()))))


Traffic = Callable[[Running, Backend], Awaitable[Any]]


async def plain(running: Running, _: Backend) -> None:
    await running.chat(model="tiny:short")


async def streamed(running: Running, _: Backend) -> None:
    await running.chat(model="tiny:short", stream=True)


async def unknown_model(running: Running, _: Backend) -> None:
    await running.chat(model="none")


async def truncated(running: Running, backend: Backend) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "length"}
    backend.script(Fault(body={"id": "x", "object": "chat.completion", "choices": [choice]}))
    await running.chat(model="tiny:short")


async def unlimited_thinking(running: Running, backend: Backend) -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 500}}
    usage = {"prompt_tokens": 5, "completion_tokens": 510, "total_tokens": 515} | details
    choice = {"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}
    backend.script(Fault(body={"id": "x", "choices": [choice], "usage": usage}))
    await running.chat(model="tiny:short")


async def refused_field(running: Running, backend: Backend) -> None:
    message = "thinking_token_budget: Extra inputs are not permitted"
    backend.script(Fault(status=400, message=message))
    for _ in range(2):
        await running.chat(model="tiny:short")


REFUSED = {"model": "tiny", "backend": "a", "field": "thinking_token_budget"}


async def cached_prompt(running: Running, backend: Backend) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}}
    backend.script(Fault(body={"id": "x", "choices": [], "usage": usage}))
    await running.chat(model="tiny:short")


async def cut_stream(running: Running, backend: Backend) -> None:
    backend.script(Fault(after=3, end="cut"))
    await running.chat(model="tiny:short", stream=True)


async def leaving_client(running: Running, backend: Backend) -> None:
    backend.script(Fault(after=1, end="stall"))
    body = {"model": "tiny:short", "messages": [{"role": "user", "content": "x"}], "stream": True}
    async with running.http.post(running.url + CHAT, json=body) as response:
        await response.content.readany()
        response.close()
    await backend.wait_until(lambda b: b.aborted)
    await running.recorded(1)


async def second_attempt(running: Running, backend: Backend) -> None:
    running.gateway.reload(Snapshot.build(two_replicas(backend), "again"))
    backend.script(Fault(status=503))
    await running.chat(model="tiny:short")


async def too_many_attempts(running: Running, backend: Backend) -> None:
    running.gateway.reload(Snapshot.build(two_replicas(backend), "again"))
    backend.default = Fault(status=503)
    for _ in range(4):
        await running.chat(model="tiny:short")


def two_replicas(backend: Backend) -> Settings:
    """Settings with the same backend as two replicas."""
    return parse(yaml.safe_dump(configuration(backend.url, backend.url)), {})


async def unreachable_backend(running: Running, backend: Backend) -> None:
    await backend.down()
    for _ in range(2):
        await running.chat(model="tiny:short")


async def lost_backend(running: Running, backend: Backend) -> None:
    await backend.down()
    for _ in range(2):
        await running.gateway.health.check()


async def reloaded(running: Running, _: Backend) -> None:
    running.gateway.reload(Snapshot.build(running.gateway.settings, "again"))


async def nothing(running: Running, _: Backend) -> None:
    pass


TIER = {"model": "tiny", "tier": "short"}
MOVES: list[tuple[Traffic, str, dict[str, str], float]] = [
    (plain, "requests_total", TIER | {"route": CHAT, "status": "200"}, 1),
    (unknown_model, "requests_total", {"model": "", "tier": "", "route": CHAT, "status": "404"}, 1),
    (nothing, "requests_in_flight", {}, 1),
    (plain, "request_duration_seconds_count", {"route": CHAT, "tier": "short"}, 1),
    (plain, "overhead_seconds_count", {"route": CHAT}, 1),
    (streamed, "time_to_first_token_seconds_count", TIER, 1),
    (plain, "decision_seconds_count", {}, 1),
    (plain, "decisions_total", TIER | {"reason": "pinned"}, 1),
    (plain, "difficulty_count", {"model": "tiny"}, 1),
    (plain, "tokens_total", TIER | {"type": "completion"}, 48),
    (streamed, "tokens_total", TIER | {"type": "completion"}, 48),
    (plain, "tokens_total", TIER | {"type": "reasoning"}, 16),
    (unlimited_thinking, "tokens_total", TIER | {"type": "prompt"}, 5),
    (cached_prompt, "tokens_total", TIER | {"type": "cached"}, 4),
    (plain, "completion_tokens_sum", TIER, 48),
    (plain, "usage_total", {"model": "tiny", "source": "backend"}, 1),
    (cut_stream, "usage_total", {"model": "tiny", "source": "counted"}, 1),
    (truncated, "usage_total", {"model": "tiny", "source": "none"}, 1),
    (truncated, "truncated_responses_total", TIER, 1),
    (plain, "thinking_budget_total", {"model": "tiny", "backend": "a", "outcome": "honoured"}, 1),
    (unlimited_thinking, "thinking_budget_total", {"model": "tiny", "backend": "a", "outcome": "ignored"}, 1),
    (unknown_model, "errors_total", {"code": "model_not_found"}, 1),
    (cut_stream, "errors_total", {"code": "backend_disconnected"}, 1),
    (second_attempt, "upstream_retries_total", {"model": "tiny"}, 1),
    (leaving_client, "upstream_cancelled_total", {"model": "tiny", "cause": "client"}, 1),
    (nothing, "backend_up", {"model": "tiny", "backend": "a"}, 1),
    (lost_backend, "backend_up", {"model": "tiny", "backend": "a"}, 0),
    (leaving_client, "backend_in_flight", {"model": "tiny", "backend": "a"}, 0),
    (refused_field, "fields_refused_total", REFUSED, 1),
    (too_many_attempts, "upstream_retries_refused_total", {"model": "tiny"}, 1),
    (unreachable_backend, "backend_breaker_state", {"model": "tiny", "backend": "a"}, 2),
    (unreachable_backend, "backend_ejections_total", {"model": "tiny", "backend": "a"}, 1),
    (reloaded, "config_reloads_total", {"result": "taken"}, 1),
    (nothing, "build_info", {"version": __version__}, 1),
]


@pytest.mark.parametrize(("traffic", "name", "labels", "expected"), MOVES)
async def test_metric_moves(
    backend: Backend, traffic: Traffic, name: str, labels: dict[str, str], expected: float
) -> None:
    """After the traffic that should change it, a metric has exactly the expected value."""
    async with serving(configuration(backend.url, breaker={"failures": 2})) as running:
        await traffic(running, backend)

        assert await sample(running, name, **labels) == expected, await scrape(running)


ELSEWHERE = {
    "test_budget_admin.py": ["budget_tokens", "budget_decisions", "redis_seconds", "redis_up"],
    "test_budget_metrics.py": [
        *("price", "price_at_bound", "budget_stale_tokens", "budget_overrun_tokens", "budget_undelivered"),
        *("redis_errors", "predicted_tokens", "predicted_correct", "longest_tokens"),
    ],
    "test_calibrated.py": ["prior_share"],
    "test_drift.py": ["drift_alarm", "drift_evidence"],
    "test_log_readers.py": ["log_lines_dropped"],
    "test_scrapes.py": ["budget_holders_left_out"],
    "limits/test_connections.py": ["connections", "connections_refused"],
    "test_causes.py": ["backend_cause"],
    "test_evidence_metrics.py": [
        *("evidence_rows", "evidence_dropped", "evidence_waiting", "evidence_store_up"),
        *("evidence_store_bytes", "evidence_oldest_seconds", "outcomes", "outcome_scores"),
        *("outcome_expected", "shadow_pairs", "shadow_flips"),
    ],
    "test_feedback.py": ["feedback"],
    "test_shadows.py": ["shadow_tokens", "shadow_in_flight", "shadow_requests"],
    "test_odd_responses.py": ["uncounted", "parser_lost"],
    "../budget/test_when_redis_fails.py": ["budget_fallbacks"],
}


def test_every_metric_is_moved() -> None:
    """Every metric is tested, either by the table above or in one of the files listed."""
    names = [family.name for family in Metrics(list).registry.collect()]
    families = {name.removeprefix("thinkmeter_") for name in names if name[:8] != "process_"}
    moved = {re.sub(r"_(total|count|sum)$|(?<=build)_info$", "", name) for _, name, *_ in MOVES}

    assert families - moved == {name for names in ELSEWHERE.values() for name in names}
    for file, elsewhere in ELSEWHERE.items():
        assert [name for name in elsewhere if name not in (Path(__file__).parent / file).read_text()] == []


async def test_process_is_measured(running: Running) -> None:
    """The metrics include CPU time, memory and start time of the process."""
    samples = await running.metrics()

    assert samples["process_cpu_seconds_total"] > 0
    assert samples["process_resident_memory_bytes"] > 1_000_000
    assert samples["process_start_time_seconds"] > 1_000_000_000


async def test_redis_that_nobody_needs_is_not_down(running: Running) -> None:
    """Without budgets Redis is not used, and the gauge is NaN."""
    up = await sample(running, "redis_up")

    assert up is not None
    assert math.isnan(up)


async def test_running_stream_is_seen(running: Running, backend: Backend) -> None:
    """While a stream runs, it counts as in flight."""
    backend.script(Fault(after=1, end="stall"))
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "stream": True}
    async with running.http.post(running.url + CHAT, json=body) as response:
        await response.content.readany()

        assert await sample(running, "requests_in_flight") == 2  # and the scrape
        assert await sample(running, "backend_in_flight", model="tiny", backend="a") == 1
        response.close()


async def test_ignored_cut_is_not_counted_as_honoured(running: Running, backend: Backend) -> None:
    """If the gateway had to count the tokens of a stream, it cannot tell whether the thinking budget held."""
    await cut_stream(running, backend)

    for outcome in ("honoured", "ignored"):
        labels = {"model": "tiny", "backend": "a", "outcome": outcome}
        assert await sample(running, "thinking_budget_total", **labels) is None


async def test_labels_are_bounded(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    """A thousand requests with different models, paths, ids and user agents create no new series."""

    async def odd(serial: int) -> None:
        call = f"{serial:x}{MARKER}"
        await running.chat(model=f"tiny:{call}")
        for method, path in (
            ("GET", f"/{call}"),
            ("POST", f"/v1/{call}"),
            ("GET", f"/v1/models/{call}"),
            ("DELETE", f"/v1/models/{call}"),
            ("GET", f"/healthz?{call}"),
            ("GET", f"/docs/{call}"),
            ("POST", f"/v1/chat/completions/{call}"),
        ):
            headers = {"x-request-id": call, "user-agent": call}
            async with running.http.request(method, running.url + path, headers=headers) as response:
                await response.read()

    with caplog.at_level(logging.CRITICAL):
        await odd(0)
        await scrape(running)
        before = set(await scrape(running))
        for serial in range(1, 126):
            await odd(serial)

    after = await scrape(running)
    assert set(after) == before
    assert not [name for name in after if MARKER in str(name)]
    assert sum(v for (name, _), v in after.items() if name == "thinkmeter_requests_total") > 1000
