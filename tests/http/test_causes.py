"""Why a replica is not healthy stands in the log, the console, the probe and the metrics."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import terminal
from gateway.upstream.causes import CAUSES, Cause, status_cause
from tests.authority import Authority
from tests.cli.command import run, write
from tests.docs.pages import page
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.wire import NEVER_MS, asked, until
from tests.serving import Running, configuration, serving

QUICKLY = {"interval": 0.02, "timeout": 20, "failures": 2}
SECRET = "the-backend-says-this"


@pytest.fixture
def reported(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What is logged about the health of replicas, as it comes."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.levelname} {record.getMessage()}")

    caplog.set_level(logging.INFO, "thinkmeter.upstream")
    handler = Kept()
    logging.getLogger("thinkmeter.upstream").addHandler(handler)
    yield lines
    logging.getLogger("thinkmeter.upstream").removeHandler(handler)


async def words(running: Running) -> set[str]:
    """The causes in the metrics."""
    metrics = await running.metrics()
    found = (re.fullmatch(r'thinkmeter_backend_cause\{.*cause="(\w+)".*', name) for name in metrics)
    return {match[1] for match in found if match}


def checks(backend: Backend) -> int:
    return sum(request.path == "/health" for request in backend.requests)


@pytest.mark.parametrize(
    ("fault", "word", "seen"),
    [
        (Fault(status=401, message=SECRET), "status_401", "GET /health: status 401"),
        (Fault(status=403, message=SECRET), "status_403", "GET /health: status 403"),
        (Fault(status=404, message=SECRET), "status_404", "GET /health: status 404"),
        (Fault(status=302), "status_3xx", "GET /health: status 302"),
        (Fault(status=418, message=SECRET), "status_4xx", "GET /health: status 418"),
        (Fault(status=502, message=SECRET), "status_5xx", "GET /health: status 502"),
        (Fault(reset=True), "closed", ""),
    ],
)
async def test_what_a_check_finds(
    backend: Backend, reported: list[str], fault: Fault, word: str, seen: str
) -> None:
    """The log names the cause in our words, the metrics its word, and /readyz its sentence without a name."""
    backend.script(fault, path="/health", times=None)
    async with serving(configuration(backend.url)) as running:
        assert await words(running) == {word}
        async with running.http.get(f"{running.url}/readyz") as response:
            told = {"status": "no healthy backend", "causes": [CAUSES[word]]}
            assert (response.status, await response.json()) == (503, told)

    (line,) = reported
    assert line.startswith(f"WARNING backend a is not healthy: {CAUSES[word]}")
    assert seen in line
    assert SECRET not in line


@pytest.mark.parametrize(
    ("url", "word"),
    [("http://127.0.0.1:1", "refused"), ("http://no-such-host.invalid", "name_not_resolved")],
)
async def test_a_replica_that_cannot_be_reached(reported: list[str], url: str, word: str) -> None:
    """The cause of a failed connection is that of the check."""
    async with serving(configuration(url)) as running:
        assert await words(running) == {word}

        assert (await running.chat()).status == 503

    assert CAUSES[word] in reported[0]


async def test_a_check_that_hangs(backend: Backend, reported: list[str]) -> None:
    """A connection that opens without a response is told from one that does not open."""
    backend.script(Fault(delay_ms=NEVER_MS), path="/health", times=None)
    async with serving(configuration(backend.url, health={"timeout": 0.6})) as running:
        assert await words(running) == {"response_timeout"}

    assert reported == [f"WARNING backend a is not healthy: {CAUSES['response_timeout']} (0.6 s)"]


async def test_each_cause_is_logged_once(backend: Backend, reported: list[str]) -> None:
    """A cause is logged when the replica turns unhealthy and when it changes, not at each check."""
    async with serving(configuration(backend.url, health=QUICKLY)) as running:
        backend.script(Fault(status=500), path="/health", times=5)
        backend.script(Fault(status=401), path="/health", times=5)
        await until(lambda: checks(backend) > 10 and running.gateway.health.ready)
        assert await words(running) == set()

    states = [line.partition(" (GET")[0] for line in reported]
    assert states == [
        "INFO backend a is healthy",
        f"WARNING backend a is not healthy: {CAUSES['status_500']}",
        f"WARNING backend a is not healthy: {CAUSES['status_401']}",
        "INFO backend a is healthy",
    ]


async def test_a_failure_that_is_forgiven_is_not_logged(backend: Backend, reported: list[str]) -> None:
    """While the replica stays healthy, a failed check is no news."""
    async with serving(configuration(backend.url, health=QUICKLY)):
        for _ in range(3):
            backend.script(Fault(status=500), path="/health")
            begun = checks(backend)
            await until(lambda begun=begun: checks(backend) >= begun + 3)

    assert reported == ["INFO backend a is healthy"]


async def test_checks_go_on_after_a_fault_of_ours(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected exception in a check is logged, and the next check takes place."""
    async with serving(configuration(backend.url, health=QUICKLY)) as running:
        ask, faults = running.gateway.upstream.ask, [RuntimeError("ours")]

        async def faulty(*args: Any, **options: Any) -> tuple[int, bytes]:
            if faults:
                raise faults.pop()
            return await ask(*args, **options)

        monkeypatch.setattr(running.gateway.upstream, "ask", faulty)
        begun = checks(backend)
        await until(lambda: checks(backend) > begun + 2)

    assert "a health check failed unexpectedly" in caplog.text


async def test_models_that_need_a_key(backend: Backend, reported: list[str]) -> None:
    """A replica that is well but refuses to name its models gets requests and leaves a hint."""
    backend.script(Fault(status=401), path="/v1/models", times=2)
    async with serving(configuration(backend.url, health=QUICKLY)) as running:
        (_, replica), *_ = running.gateway.snapshot.backends()
        assert (replica.healthy, replica.cause) == (True, Cause("status_401", "GET /v1/models: status 401"))
        assert (await running.chat()).status == 200
        await until(lambda: replica.cause is None)
        assert replica.context == backend.max_model_len

    hint = f"WARNING backend a is healthy: {CAUSES['status_401']} (GET /v1/models: status 401)"
    assert reported == [hint]


@pytest.mark.parametrize(
    ("body", "word", "seen"),
    [
        ({"data": []}, "model_not_listed", "GET /v1/models: tiny is none of 0"),
        (
            {"data": [{"id": SECRET}, {"id": "tiny:short"}]},
            "model_not_listed",
            "GET /v1/models: tiny is none of 2",
        ),
        (f"<html>{SECRET}</html>", "models_unreadable", "GET /v1/models: an HTML page of 34 bytes"),
        ({"error": SECRET}, "models_unreadable", "GET /v1/models: other content of 33 bytes"),
    ],
)
async def test_models_that_are_others(
    backend: Backend, reported: list[str], body: object, word: str, seen: str
) -> None:
    """A replica without the model, or a page in its place, leaves a hint, and requests show the rest."""
    backend.script(Fault(body=body, content_type="text/html"), path="/v1/models", times=None)
    async with serving(configuration(backend.url)) as running:
        assert await words(running) == {word}
        assert (await running.chat()).status == 200
        assert running.gateway.console.snapshot()["backends"][0]["cause"] == CAUSES[word]

    assert reported == [f"WARNING backend a is healthy: {CAUSES[word]} ({seen})"]


async def test_login_page_in_place_of_everything(backend: Backend, reported: list[str]) -> None:
    """A proxy that begins to answer with its login page is noticed, although its status is 200."""
    async with serving(configuration(backend.url, health=QUICKLY)) as running:
        page = Fault(body="<html>log in</html>", content_type="text/html")
        for path in ("/health", "/v1/models", None):
            backend.script(page, path=path, times=None)
        await until(lambda: len(reported) == 2)
        assert (await running.chat()).status == 502
        detail = (await running.recorded(1))[0].error.detail  # type: ignore[union-attr]

    assert CAUSES["models_unreadable"] in reported[1]
    assert detail.startswith("status 200, not application/json, but text/html: its URL may be wrong")


async def test_request_without_replica_says_why(reported: list[str]) -> None:
    """The access log of a 503 has the cause that the health check found."""
    async with serving(configuration("http://127.0.0.1:1")) as running:
        await running.gateway.health.check()
        assert (await running.chat()).status == 503
        (record,) = await running.recorded(1)

    assert record.error is not None
    assert record.error.detail == f"a: {CAUSES['refused']} (127.0.0.1:1)"


async def test_console_shows_the_cause(backend: Backend) -> None:
    """The console has the sentence, without addresses."""
    async with serving(configuration(backend.url, "http://127.0.0.1:1")) as running:
        backends = running.gateway.console.snapshot()["backends"]

    assert [(shown["name"], shown["cause"]) for shown in backends] == [("a", None), ("b", CAUSES["refused"])]


async def test_probe_says_why(backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe shows the cause of a dead replica, and of models that it may not list."""
    backend.script(Fault(status=401), path="/v1/models", times=None)
    path = write(tmp_path, configuration("http://127.0.0.1:1", backend.url))
    monkeypatch.setattr(terminal.out, "_width", 400)  # what rich makes of COLUMNS is fixed at the import
    result = await asyncio.to_thread(run, "probe", path)

    assert f"{CAUSES['refused']} (127.0.0.1:1)" in result.stdout
    assert f"{CAUSES['status_401']} (GET /v1/models: status 401)" in result.stdout


async def test_replica_with_tls(authority: Authority) -> None:
    """Requests and health checks use the replica's CA and the gateway's certificate."""
    server, ours = authority.certificate("replica", "IP:127.0.0.1"), authority.certificate("gateway")
    tls = {"ca": authority.ca, "cert": ours.cert, "key": ours.key}
    async with Backend("tiny", tls=server.context(clients=authority.ca)) as backend:
        settings: dict[str, Any] = configuration(backend.url)
        settings["models"]["tiny"]["replicas"][0]["tls"] = tls
        async with serving(settings) as running:
            assert (await running.chat()).status == 200
            assert (await running.chat(stream=True)).status == 200

    assert len(asked(backend)) == 2


def test_every_cause_is_documented() -> None:
    """docs/runbook.md lists the words of the label with their sentences."""
    documented = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page("runbook.md"), re.MULTILINE))

    assert {word: documented.get(word) for word in CAUSES} == CAUSES


@pytest.mark.parametrize(
    ("status", "word"), [(401, "status_401"), (410, "status_4xx"), (599, "status_5xx"), (999, "status_other")]
)
def test_word_of_a_status(status: int, word: str) -> None:
    """Every status has one of the known words, so that the label is bounded."""
    found = status_cause(status, "/health")

    assert (found.word, found) == (word, Cause(word, f"GET /health: status {status}"))
