"""The table of families in the documentation says what the table in the configuration does."""

from __future__ import annotations

import re

import pytest

from gateway.config.loader import builtin_families
from gateway.config.models import Family
from tests.docs.pages import assert_same, named, page, rows

FAMILIES = {name: Family.model_validate(row) for name, row in builtin_families().items()}
COLUMNS = ("off", "efforts", "unknown", "parser", "budget", "source")
TABLE = {
    named(row[0]): dict(zip(COLUMNS, row[2:], strict=True))
    for row in rows(page("families.md"))
    if len(row) == len(COLUMNS) + 2
}


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_family_has_a_row() -> None:
    """The page lists every built-in family and no other."""
    assert_same(TABLE, FAMILIES, "families.md")


@pytest.mark.parametrize("name", FAMILIES)
def test_row(name: str) -> None:
    """Switch, efforts, parser and budget are those of the table, and every row but `plain` has a source."""
    row, family = TABLE[name], FAMILIES[name]
    off = family.no_thinking

    assert words(row["efforts"]) == list(family.efforts)
    assert words(row["parser"])[:1] == ([family.parser] if family.parser else [])
    assert row["budget"].startswith("yes") == ("thinking_token_budget" in family.thinking)
    assert (row["off"] == "cannot") == (off is None)
    assert (row["off"] == "budget 0") == (off == {"thinking_token_budget": 0})
    assert all(word in str(off) for word in words(row["off"]))
    assert (row["unknown"] == "no variable") == (not family.efforts and name != "plain")
    assert name == "plain" or "[" in row["source"]


def test_sources_have_an_address() -> None:
    """Every source that is named has an address, and every address is used."""
    text = page("families.md")
    named_here = set(re.findall(r"\]\[([\w-]+)\]", text))

    assert_same(named_here, re.findall(r"^\[([\w-]+)\]: https://", text, re.MULTILINE), "families.md")
