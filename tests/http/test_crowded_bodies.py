"""Bodies that take long to parse are parsed in a thread, so that others need not wait."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gateway.openai_api.large_requests import LARGE_BODY, slow_to_parse
from tests.http.raw_http import ask
from tests.serving import Running

CROWDED: dict[str, tuple[str, dict[str, Any]]] = {
    "messages": ("/v1/chat/completions", {"messages": [{"role": "user", "content": ""}] * 5_000}),
    "parts": ("/v1/chat/completions", {"messages": [{"role": "user", "content": [""] * 5_000}]}),
    "token ids": ("/v1/completions", {"prompt": [1] * 9_000}),
}
ROOMY = {"messages": [{"role": "user", "content": "word, and " * 3_000}]}


@pytest.mark.parametrize("name", [*CROWDED, "roomy"])
async def test_crowded_bodies_are_parsed_in_a_thread(
    running: Running, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A body below the size of a large one, but with thousands of parts, leaves the event loop to others."""
    sizes: list[int] = []

    class Counting(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            sizes.append(len(args[0]))
            return super().submit(fn, *args, **kwargs)

    with Counting(1) as threads:
        monkeypatch.setattr("gateway.pipeline.serve.large_bodies", threads)
        path, fields = CROWDED.get(name, ("/v1/chat/completions", ROOMY))
        answer = await ask(running.http, running.url, path, {"model": "tiny"} | fields)

    assert answer.status == 200
    assert len(sizes) == (name != "roomy")
    assert all(size <= LARGE_BODY for size in sizes)


def test_what_is_slow_to_parse() -> None:
    """Large bodies and crowded ones; but nothing small, and no prose."""
    assert slow_to_parse(b"x" * (LARGE_BODY + 1))
    assert slow_to_parse(b"{}," * 80_000)
    assert not slow_to_parse(b"," * 16_000)
    assert not slow_to_parse(b"Some words, and more words, and so on. " * 2_000)
