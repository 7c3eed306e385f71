"""Heads that use embeddings. If an embedding is late or fails, the head abstains; no request fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.backend import Backend
from tests.fakes.embeddings import Embeddings, embeddings
from tests.http.raw_http import ask
from tests.http.wire import connection, wired
from tests.router_model import made
from tests.serving import Running, configuration, serving

pytest.importorskip("scipy")

from router_model.encoders.base import Source
from router_model.encoders.open import opened
from router_model.training import train

TIERS = {"short": {"thinking": 0, "answer": 200}, "long": {"thinking": 200, "answer": 200}}
EASY_CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "what is 1 + 1?"}]}
EASY, HARD = made.EASY.format(31, 38), made.HARD.format(33, 40)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head for the model `tiny`, trained on the embeddings of a server."""
    out = tmp_path_factory.mktemp("head") / "words"
    with embeddings() as server:
        encoder = opened(Source(server.url, model="words"))
        train.save(train.train([replace(made.table(160), name="tiny")], "head", encoder=encoder), out)
    return out


@pytest.fixture
def server() -> Iterator[Embeddings]:
    """The embeddings server that the gateway uses."""
    with embeddings(key="secret") as running:
        yield running


def settings(backend: Backend, head: Path, source: str, **changes: Any) -> dict[str, Any]:
    encoder = {"source": source, "api_key": "secret", "timeout": 5} | changes
    return configuration(backend.url, model={"tiers": TIERS}, head=str(head), encoder=encoder, price=1.0)


@pytest.fixture
async def running(backend: Backend, trained: Path, server: Embeddings) -> AsyncIterator[Running]:
    """A gateway with the trained head."""
    async with serving(settings(backend, trained, server.url)) as found:
        yield found


async def chosen(running: Running, prompt: str) -> tuple[str, str]:
    """Tier and reason of a successful chat request."""
    response = await running.chat(prompt)
    assert response.status == 200
    return response.headers["x-thinkmeter-tier"], response.headers["x-thinkmeter-reason"]


async def test_decides_by_embeddings(running: Running, server: Embeddings) -> None:
    """Only hard prompts get thinking; each is embedded once, with the key; the dry run agrees."""
    assert await chosen(running, EASY) == ("short", "price")
    assert await chosen(running, HARD) == ("long", "price")
    assert await chosen(running, HARD) == ("long", "price")
    assert [text for text in server.texts if text in {EASY, HARD}] == [EASY, HARD]

    fresh = made.HARD.format(8, 9)
    body = {"model": "tiny", "messages": [{"role": "user", "content": fresh}]}
    dry = (await ask(running.http, running.url, "/v1/route", body)).json["decision"]
    assert (dry["tier"], dry["reason"]) == ("long", "price")


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 401},
        {"body": b"<html>"},
        {"body": b'{"data": []}'},
        {"body": b'{"data": [{"index": 1e999, "embedding": [1]}]}'},
        {"salt": "x"},
    ],
)
async def test_faults_cost_no_request(running: Running, server: Embeddings, fault: dict[str, Any]) -> None:
    """Whatever is wrong with the embeddings, the head abstains and the request succeeds."""
    for name, value in fault.items():
        setattr(server, name, value)

    assert (await chosen(running, HARD))[1] == "abstained"


async def test_slow_server(
    backend: Backend, trained: Path, server: Embeddings, caplog: pytest.LogCaptureFixture
) -> None:
    """The timeout limits the delay by a slow server; after five in a row it is not called for a while."""
    server.delay = 1.0
    async with serving(settings(backend, trained, server.url, timeout=0.05)) as running:
        found = [await chosen(running, made.HARD.format(at, at)) for at in range(12)]

        assert {reason for _, reason in found} == {"abstained"}
        assert len(server.asked) == 5
    assert "no embedding, the head abstains: timeout" in caplog.messages


async def test_no_server(backend: Backend, trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If the server is unreachable, the head abstains, and the log says why."""
    async with serving(settings(backend, trained, "http://127.0.0.1:9")) as running:
        assert (await chosen(running, HARD))[1] == "abstained"
    assert "the head abstains: connection refused" in caplog.text


async def test_cancelled_requests_leave_the_encoder_usable(running: Running, server: Embeddings) -> None:
    """Requests cancelled while they wait for an embedding do not count as failures of the server."""
    pipeline, server.delay = running.gateway.pipeline, 1.0
    encoder, section = pipeline.snapshot.router.embedder, pipeline.snapshot.settings.encoder
    assert encoder
    assert section
    waits = [pipeline.embeddings.prefetch(encoder, section, made.HARD.format(at, at)) for at in range(6)]
    tasks = [asyncio.create_task(wait) for wait in waits]
    async with asyncio.timeout(20):
        while len(server.asked) < len(tasks):
            await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    server.delay = 0.0

    assert await chosen(running, HARD) == ("long", "price")


async def test_client_leaves_while_its_prompt_is_embedded(running: Running, server: Embeddings) -> None:
    """A client that leaves before the decision is noticed at once, and nothing is decided for it."""
    server.delay = 1.0
    async with connection(running) as (_, writer):
        writer.write(wired(EASY_CHAT))
        while (await running.metrics())["thinkmeter_requests_in_flight"] < 2:  # with the scrape
            await asyncio.sleep(0)
    async with asyncio.timeout(5):
        while not any(record.status == 499 for record in running.records):
            await asyncio.sleep(0.005)
    (record,) = [record for record in running.records if record.status == 499]
    server.delay = 0.0

    assert record.decision is None


async def test_sentence_encoder_in_the_process(backend: Backend, tmp_path: Path) -> None:
    """A BERT in the gateway's process decides as well, in a thread beside the event loop."""
    pytest.importorskip("tokenizers")
    from tests.router_model import bert

    folder = bert.write(bert.random_weights(0), tmp_path / "bert", 4)
    bert.write_tokenizer(folder)
    table = replace(made.table(160), name="tiny")
    train.save(train.train([table], "head", encoder=opened(Source(str(folder)))), tmp_path / "head")
    async with serving(settings(backend, tmp_path / "head", str(folder))) as running:
        found = await asyncio.gather(*(chosen(running, text) for text in (EASY, HARD) * 8))

    assert found == [("short", "price"), ("long", "price")] * 8
