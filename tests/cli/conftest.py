"""A wide terminal and a valid configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli import terminal as cli
from tests.cli.command import write
from tests.serving import configuration


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the terminal so wide that tables are not broken at 80 columns."""
    for console in (cli.out, cli.err):
        monkeypatch.setattr(console, "_width", 300)


@pytest.fixture
def valid(tmp_path: Path) -> str:
    """A valid configuration file."""
    return write(tmp_path, configuration("http://127.0.0.1:1", price=0.05))
