"""Reads the pages of the documentation."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@cache
def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def section(text: str, heading: str) -> str:
    """The text under a heading, up to the next heading of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no heading {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, without the head of the table."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in table if "`" in row[0]]


def named(cell: str) -> str:
    """The first word in backticks."""
    found = re.search(r"`([^`]+)`", cell)
    assert found, cell
    return found[1]


def assert_same(documented: Any, existing: Any, where: str) -> None:
    missing, unknown = set(existing) - set(documented), set(documented) - set(existing)
    assert not missing, f"not documented in {where}: {sorted(missing)}"
    assert not unknown, f"documented in {where}, but unknown to the code: {sorted(unknown)}"
