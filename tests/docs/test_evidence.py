"""The page about the evidence names every field that is stored, under its table."""

from __future__ import annotations

import re

import pytest

from gateway.evidence.schema import STORED, metadata
from tests.docs.pages import page


@pytest.mark.parametrize("table", STORED.values(), ids=lambda table: str(table.name))
def test_every_field_is_documented(table: object) -> None:
    """Exactly the columns of a table are listed behind its name."""
    name, columns = table.name, {column.name for column in table.columns}  # type: ignore[attr-defined]
    text = page("evidence.md")
    part = text[text.index(f"\n`{name}`: one row per") :]
    listed = re.match(r"\n`.*\n\n((?:\|.*\n)+)", part)
    assert listed
    cells = [row.split("|")[1] for row in listed[1].splitlines()[2:]]
    assert {word for cell in cells for word in re.findall(r"`(\w+)`", cell)} == columns


def test_every_table_is_documented() -> None:
    """No table is left out, also not those without data about requests."""
    assert [table for table in metadata.tables if f"`{table}`" not in page("evidence.md")] == []
