"""The machine and the versions that the figures belong to, without the machine's name."""

from __future__ import annotations

import importlib.metadata
import os
import platform

from tests.bench import proc

PACKAGES = ("thinkmeter", "aiohttp", "fastapi", "uvicorn", "uvloop", "httptools", "msgspec", "orjson")


def describe() -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "cpu": proc.cpu_model(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
    }
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
