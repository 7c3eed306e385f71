"""Measures the embedded engine: `python -m tests.bench.engine [--seeds] [--whole]`.

16 clients ask over HTTP, with at most 320 tokens of thinking. Each asks its next question as soon as it has
an answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

from examples import servers
from examples.tiny_reasoner.task import held_out_set
from tests.bench.machine import describe

CLIENTS, QUESTIONS, THINKING = 16, 384, servers.TIERS["long"]


def questions(*, seeds: bool, stream: bool) -> Iterator[dict[str, Any]]:
    """Request bodies."""
    fields: dict[str, Any] = {"model": "tiny", "thinking_token_budget": THINKING}
    fields |= {"max_tokens": THINKING + servers.ANSWER, "stream": stream}
    fields |= {"stream_options": {"include_usage": True}} if stream else {}
    for number, question in enumerate(held_out_set(QUESTIONS)):
        messages = [{"role": "user", "content": question.text}]
        yield fields | {"messages": messages} | ({"seed": number} if seeds else {})


async def ask(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> tuple[int, float]:
    """Completion tokens of one response, and seconds until its first token (stream) or its end."""
    begun, waited, last = time.perf_counter(), 0.0, b""
    async with http.post(f"{url}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        if not body["stream"]:
            answer = await response.json()
            return answer["usage"]["completion_tokens"], time.perf_counter() - begun
        async for line in response.content:
            if line.startswith(b"data: {"):
                if last and not waited:  # the first event names the role
                    waited = time.perf_counter() - begun
                last = line
    return json.loads(last[6:])["usage"]["completion_tokens"], waited


async def measure(url: str, *, seeds: bool, stream: bool) -> dict[str, float]:
    """Tokens per second, and the median wait of a client."""
    found, todo = [], questions(seeds=seeds, stream=stream)

    async def client(http: aiohttp.ClientSession) -> None:
        for body in todo:
            found.append(await ask(http, url, body))

    begun = time.perf_counter()
    async with aiohttp.ClientSession() as http:
        await asyncio.gather(*(client(http) for _ in range(CLIENTS)))
    tokens = sum(tokens for tokens, _ in found) / (time.perf_counter() - begun)
    waited = statistics.median(waited for _, waited in found)
    name = "first_token_p50_ms" if stream else "answer_p50_ms"
    return {"tokens_per_second": round(tokens), name: round(1_000 * waited)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", action="store_true", help="a seed in every request")
    parser.add_argument("--whole", action="store_true", help="answers at once, not streamed")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, servers.engine(Path(folder)) as url:
        found = asyncio.run(measure(url, seeds=asked.seeds, stream=not asked.whole))
    print(json.dumps({"machine": describe()} | found, indent=2))


if __name__ == "__main__":
    main()
