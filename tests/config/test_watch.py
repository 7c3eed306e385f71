"""A changed configuration is loaded without blocking the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path

from gateway.config.watch import watch


async def test_streams_go_on_while_a_configuration_is_loaded(tmp_path: Path) -> None:
    """The event loop keeps running during `load`: here `load` returns only after the loop lets it."""
    path = tmp_path / "gateway.yaml"
    path.write_text("old")
    loading, may_end, taken = threading.Event(), threading.Event(), asyncio.Event()

    def load(changed: Path) -> str:
        loading.set()
        assert may_end.wait(30), "the event loop stood still"
        return changed.read_text()

    loaded: list[str] = []

    def take(text: str) -> None:
        loaded.append(text)
        taken.set()

    watcher = asyncio.create_task(watch(path, load, take, refused=lambda: None))
    await asyncio.sleep(0)
    path.write_text("the new one")
    async with asyncio.timeout(60):
        while not loading.is_set():
            await asyncio.sleep(0.01)
        may_end.set()
        await taken.wait()
    watcher.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watcher
    assert loaded == ["the new one"]
