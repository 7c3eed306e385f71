"""Reloads the configuration without a restart, on SIGHUP and when the file changes."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gateway.config.loader import ConfigError

log = logging.getLogger("thinkmeter.config")

_POLL_SECONDS = 1.0

Loaded = TypeVar("Loaded")


async def watch(
    path: Path, load: Callable[[Path], Loaded], take: Callable[[Loaded], None], refused: Callable[[], None]
) -> None:
    """Load each changed configuration and pass it to `take`; if it is invalid, call `refused` instead.

    `load` parses YAML and opens a head, so it runs in a thread to keep the event loop free for streams.
    """
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, asked.set)
    try:
        known = _stamp(path)
        while True:
            try:
                async with asyncio.timeout(_POLL_SECONDS):
                    await asked.wait()
            except TimeoutError:
                if _stamp(path) == known:
                    continue
            asked.clear()
            known = _stamp(path)
            try:
                take(await asyncio.to_thread(load, path))
                log.info("configuration reloaded")
            except ConfigError as error:
                refused()
                log.warning("configuration refused, the old one stays: %s", error)
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
