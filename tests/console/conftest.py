"""A real browser."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    """Chromium as the system has it, driven by Playwright."""
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed; `make test` installs it")
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        # containers run as root and with a small /dev/shm, where Chromium's own sandbox and cache do not work
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        running = await playwright.chromium.launch(executable_path=executable, args=options)
        yield running
        await running.close()
