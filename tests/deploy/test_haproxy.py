"""HAProxy with the configuration of the compose stack, in front of a real gateway."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.fakes.backend import Backend
from tests.http.raw_http import connect
from tests.serving import Running, configuration, free_port, serving

ROOT = Path(__file__).parents[2]
HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SECRET = b"thinkmeter_"
"""A part of every exposition."""


def local(text: str, gateway: str, port: int, status: int) -> str:
    """The configuration with the addresses of this test in place of Docker's names."""
    text = text.replace("bind :8080", f"bind 127.0.0.1:{port}").replace(
        "bind :8404", f"bind 127.0.0.1:{status}"
    )
    text = re.sub(r"(?ms)^resolvers docker.*?(?=^frontend)", "", text)
    text = re.sub(r" +server-template .*", f"    server gateway {gateway}", text)
    text = re.sub(r" +default-server .*\n", "", text)
    return re.sub(r".*prometheus-exporter.*\n", "", text)  # not every build has it


@contextmanager
def balancing(gateway: str, folder: Path) -> Iterator[str]:
    """HAProxy in front of this gateway; its URL."""
    if HAPROXY is None:
        pytest.skip("no haproxy")
    port, file = free_port(), folder / "haproxy.cfg"
    text = (ROOT / "deploy/haproxy/haproxy.cfg").read_text()
    file.write_text(local(text, urlsplit(gateway).netloc, port, free_port()))
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([HAPROXY, "-db", "-f", str(file)], stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
async def balanced(backend: Backend, tmp_path: Path) -> AsyncIterator[tuple[Running, str]]:
    """A gateway, and the URL of HAProxy in front of it."""
    async with serving(configuration(backend.url, admin={"key": "top-secret"})) as running:
        with balancing(running.url, tmp_path) as url:
            async with asyncio.timeout(20):
                while True:
                    try:
                        async with running.http.get(f"{url}/healthz") as response:
                            assert response.status == 200
                            break
                    except OSError:
                        await asyncio.sleep(0.02)
            yield running, url


async def raw(url: str, target: str) -> tuple[int, bytes]:
    """Status and body of a GET of exactly this target, which a client library would rewrite."""
    async with connect(url) as (reader, writer):
        writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("latin-1"))
        head, _, body = (await reader.read(1_000_000)).partition(b"\r\n\r\n")
        while more := await reader.read(1_000_000):
            body += more
    return int(head.split(b" ", 2)[1]), body


SPELLINGS = [
    *(
        "/metrics",
        "/%6detrics",
        "/%6Detrics",
        "/metric%73",
        "/%6d%65%74%72%69%63%73",
        "/metrics?x",
        "/metrics/",
    ),
    *("//metrics", "/%2fmetrics", "/./metrics", "/%2e/metrics", "/v1/../metrics", "/v1/%2e%2e/metrics"),
    *("/v1/..%2fmetrics", "/v1/models/../../metrics", "/console/../metrics", "/docs/..;/metrics"),
    *("/metrics;x", "/metrics%00", "/metrics%20", "/METRICS", "/%256detrics", "/metrics%2f", "/metrics%3f"),
    *("http://x/metrics", "http://x/%6detrics", "http://x/v1/../metrics", "/metrics#x", "/v1/#/../metrics"),
    *("http://x//metrics", "\\metrics", "/\\metrics", "/v1/%5c..%5cmetrics"),
]


async def test_no_spelling_shows_the_metrics(balanced: tuple[Running, str]) -> None:
    """However /metrics is spelled, HAProxy does not pass it, and nothing else of the gateway returns it."""
    running, url = balanced
    assert SECRET in (await raw(running.url, "/metrics"))[1]

    for target in SPELLINGS:
        status, body = await raw(url, target)
        assert SECRET not in body, target
        assert 400 <= status < 500, (target, status)


async def test_public_paths_pass(balanced: tuple[Running, str]) -> None:
    """What clients use passes, with names that contain slashes and escapes."""
    running, url = balanced
    expected = {
        "/healthz": 200,
        "/readyz": 200,
        "/v1/models": 200,
        "/v1/models/tiny": 200,
        "/v1/models/t%69ny": 200,
        "/v1/models/tiny%3Ashort": 200,
        "/v1/models/org%2Fnone": 404,
        "/console": 200,
        "/console/app.js": 200,
        "/openapi.json": 200,
        "/docs": 200,
        "/admin/budgets": 401,
        "http://x/v1/models": 200,
    }
    found = {target: (await raw(url, target))[0] for target in expected}
    assert found == expected

    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "stream": True}
    async with running.http.post(f"{url}/v1/chat/completions", json=body) as response:
        assert response.status == 200
        assert (await response.text()).endswith("data: [DONE]\n\n")
