"""A real browser for the tests."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    """The system's Chromium, driven by Playwright."""
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed; `make test` installs it")
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        # Chromium's sandbox does not work as root, nor its cache in a small /dev/shm; containers have both
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        running = await playwright.chromium.launch(executable_path=executable, args=options)
        yield running
        await running.close()
