"""The architecture page and the map in CONTRIBUTING show what the import contracts and the tests hold."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.docs.pages import ROOT, page

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
LAYERS = {contract["containers"][0]: contract["layers"] for contract in CONTRACTS if "containers" in contract}


def drawn(package: str) -> list[str]:
    """The lines of a package's box on the page: names, with bars between neighbours."""
    box = page("architecture.md").partition(f"┌─ {package} ")[2].partition("└──")[0]
    lines = [line.strip(" │") for line in box.splitlines()[1:] if line.strip(" │")]
    return [re.split(r"  +", line)[0] for line in lines]


@pytest.mark.parametrize("package", LAYERS)
def test_picture_shows_the_layers(package: str) -> None:
    """The boxes of the page list the layers of the contracts, from top to bottom."""
    assert drawn(package) == [layer for layer in LAYERS[package] if layer != "__main__"]


def test_contracts_are_named_as_they_are() -> None:
    """Every contract is named on the page, and the page names no other."""
    quoted = re.findall(r'"([A-Z][^"]+)"', page("architecture.md"))

    assert set(quoted) == {contract["name"] for contract in CONTRACTS}


def test_tests_exist() -> None:
    """Every test that the page names is a test, and every file that it names is there."""
    text = page("architecture.md")
    files = re.findall(r"`(tests/[\w/]+(?:\.py)?)", text)
    names = re.findall(r"\b(test_\w+)`", text)

    assert files
    assert names
    assert [file for file in files if not (ROOT / file).exists()] == []
    assert [name for name in names if f"def {name}(" not in TESTS] == []


def test_map_has_every_package() -> None:
    """Each layer of the contracts has a row in CONTRIBUTING's map."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    names = {name for layers in LAYERS.values() for layer in layers for name in layer.split(" | ")}
    rows = "\n".join(line for line in text.splitlines() if line.startswith("| "))

    assert [name for name in sorted(names - {"__main__"}) if f"`{name}`" not in rows] == []
