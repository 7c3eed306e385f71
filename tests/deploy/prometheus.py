"""Runs a real Prometheus that scrapes a real gateway."""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import yaml

from tests.deploy.reading import RULES

HOUR = 3600


@dataclass
class Prometheus:
    """A running Prometheus."""

    url: str
    http: aiohttp.ClientSession

    async def values(self, expression: str, seconds: int = 90) -> list[float]:
        """All values of all series in the last `seconds`, without NaN."""
        now = time.time()
        asked = {"query": expression, "start": str(now - seconds), "end": str(now), "step": "1"}
        async with self.http.post(f"{self.url}/api/v1/query_range", data=asked) as response:
            answer = await response.json()
        assert answer["status"] == "success", (expression, answer)
        found = [float(value) for series in answer["data"]["result"] for _, value in series["values"]]
        return [value for value in found if not math.isnan(value)]


def backfill(folder: Path, series: dict[str, float]) -> None:
    """Write 25 hours of history, up to half an hour ago: counters that grow by so much per minute."""
    promtool = shutil.which("promtool")
    assert promtool
    now = int(time.time())
    lines = []
    for name in sorted({name.split("_total{")[0] for name in series}):
        lines.append(f"# TYPE {name} counter")
        lines += [
            f"{key} {rate * minute} {now - 25 * HOUR + 60 * minute}"
            for key, rate in series.items()
            if key.startswith(f"{name}_total{{")
            for minute in range(0, 25 * 60 - 30, 5)
        ]
    (folder / "history.txt").write_text("\n".join([*lines, "# EOF", ""]))
    command = (
        promtool,
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        str(folder / "history.txt"),
        str(folder / "data"),
    )
    subprocess.run(command, check=True, capture_output=True)


@contextlib.asynccontextmanager
async def prometheus(folder: Path, target: str, port: int) -> AsyncIterator[Prometheus]:
    """Run Prometheus with the rules of deploy/, evaluated every second. target: HOST:PORT to scrape."""
    server = shutil.which("prometheus") or pytest.skip("prometheus is not installed (Debian: prometheus)")
    job = {"job_name": "thinkmeter", "static_configs": [{"targets": [target]}]}
    every = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"}
    config = {"global": every, "rule_files": [f"{RULES}/*.yaml"], "scrape_configs": [job]}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    options = (f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data")
    with (folder / "prometheus.log").open("wb") as log:
        running = await asyncio.create_subprocess_exec(
            server, *options, f"--web.listen-address=127.0.0.1:{port}", stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as http:
            while True:
                assert running.returncode is None, (folder / "prometheus.log").read_text()
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(f"{url}/-/ready") as response:
                        if response.status == 200:
                            break
                await asyncio.sleep(0.1)
            yield Prometheus(url, http)
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()
