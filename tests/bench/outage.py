"""
How long requests take while the store of evidence is away: `python -m tests.bench.outage [--minutes 10]`.

A gateway process with `evidence` on a real PostgreSQL gets requests at a steady rate, whatever it answers.
The server is stopped as if it crashed, and started again after the given time. Before and after, the same
load runs for a fifth of that time. The table has the times of requests in the three parts; every row must be
written or counted as dropped.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import aiohttp

from tests.bench.machine import describe
from tests.evidence.postgres import RealPostgres, binaries
from tests.fakes.backend import Backend
from tests.serving import Process, configuration, free_port, process

BODY = {"model": "tiny", "messages": [{"role": "user", "content": "What is 12 times 7? Answer in a word."}]}


class Load:
    """Requests at a steady rate."""

    def __init__(self, url: str, rate: float) -> None:
        self._url, self._rate = f"{url}/v1/chat/completions", rate
        self.failed = 0
        """Requests that were not answered with 200."""
        self.sent = 0

    async def run(self, seconds: float) -> list[float]:
        """Send for so long. Returns how long each request took, in ms, in rising order."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            began, tasks = time.perf_counter(), []
            for number in range(round(seconds * self._rate)):
                await asyncio.sleep(max(0.0, began + number / self._rate - time.perf_counter()))
                tasks.append(asyncio.create_task(self._ask(http)))
            return sorted(await asyncio.gather(*tasks))

    async def _ask(self, http: aiohttp.ClientSession) -> float:
        began = time.perf_counter()
        self.sent += 1
        try:
            async with http.post(self._url, json=BODY) as response:
                await response.read()
                self.failed += response.status != 200
        except aiohttp.ClientError:
            self.failed += 1
        return 1000 * (time.perf_counter() - began)


async def counted(gateway: Process, name: str) -> float:
    """The sum of all series of a metric."""
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def measure(postgres: RealPostgres, folder: Path, minutes: float, rate: float) -> None:
    """Run the three parts, and print what became of the requests and of the rows."""
    async with Backend("tiny") as backend:
        evidence = {"url": postgres.create("evidence")}
        settings = configuration(backend.url, evidence=evidence)
        async with process(settings, folder, port=free_port()) as gateway:
            load, away = Load(gateway.url, rate), 60 * minutes
            await load.run(3)
            print("| store | requests | p50 ms | p99 ms | p99.9 ms | longest ms |\n|---|--:|--:|--:|--:|--:|")
            for part, seconds in (("there", away / 5), ("away", away), ("back", away / 5)):
                if part == "away":
                    await asyncio.to_thread(postgres.stop)
                if part == "back":
                    await asyncio.to_thread(postgres.start)
                times = await load.run(seconds)
                marks = [times[min(len(times) - 1, int(len(times) * q))] for q in (0.5, 0.99, 0.999, 1)]
                print(f"| {part} | {len(times):,} |", " | ".join(f"{mark:.2f}" for mark in marks), "|")
            async with asyncio.timeout(60):
                while await counted(gateway, "thinkmeter_evidence_waiting"):
                    await asyncio.sleep(0.5)
            written = await counted(gateway, 'thinkmeter_evidence_rows_total{table="decisions"')
            dropped = await counted(gateway, "thinkmeter_evidence_dropped_total")
        print(f"\n{load.failed} of {load.sent:,} requests failed", end="; ")
        print(f"{written:,.0f} rows written, {dropped:,.0f} dropped")
        print(f"{gateway.log.read_text().count('is away')} lines of the log say that the store is away")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=100, help="requests per second")
    asked = parser.parse_args()
    programs = binaries()
    if programs is None:
        parser.error("there is no PostgreSQL on this machine")
    print(describe())
    postgres = RealPostgres(programs)
    try:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(measure(postgres, Path(folder), asked.minutes, asked.rate))
    finally:
        postgres.remove()


if __name__ == "__main__":
    main()
