"""The supported range of vLLM is the tested one, wherever it is written."""

from __future__ import annotations

import re

from tests.deploy.reading import ROOT, read
from tests.docs.pages import PAGES
from tests.integration.install_vllm import FOLDERS, SUPPORTED

RANGE = re.compile(r"vLLM\s+(\d+\.\d+(?:\.\d+)?) to (\d+\.\d+(?:\.\d+)?)")


def test_the_range_is_stated_once() -> None:
    """README.md names both ends, and no other page has a range that could disagree."""
    stated = {path.name: RANGE.findall(path.read_text()) for path in PAGES}
    assert {name: found for name, found in stated.items() if found} == {
        "README.md": [(SUPPORTED["oldest"], SUPPORTED["newest"])]
    }


def test_the_package_asks_for_the_oldest() -> None:
    """The extra `vllm` begins where the supported range begins."""
    assert f'vllm = ["vllm>={SUPPORTED["oldest"]}"]' in (ROOT / "pyproject.toml").read_text()


def test_compose_runs_a_tested_release() -> None:
    """Every vLLM image of compose.yaml has the same tag, and it is one of the tested releases."""
    images = [service["image"] for service in read("compose.yaml")["services"].values()]
    tags = {image.partition(":v")[2] for image in images if image.startswith("vllm/")}
    assert len(tags) == 1
    assert tags <= set(SUPPORTED.values())


def test_both_ends_are_tested() -> None:
    """`make test-vllm` installs and tests each end, each in its own folder, and CI runs it."""
    makefile = (ROOT / "Makefile").read_text()
    assert "\nVLLM ?= oldest newest\n" in makefile
    for release, folder in FOLDERS.items():
        assert f"install_vllm.py {release}\n" in makefile
        assert f"VLLM={release} $(RUN) -m pytest tests/integration" in makefile
        assert f"test-vllm-{release}: .venv/.synced {folder}/.installed\n" in makefile
    assert "\nmake test-vllm\n" in (ROOT / ".ci" / "run").read_text()
