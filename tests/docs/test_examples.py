"""The documentation's examples are valid, its commands exist, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from gateway.cli.main import cli
from gateway.config.loader import parse
from tests.docs.pages import PAGES, ROOT, assert_same


def environ_for(text: str) -> dict[str, str]:
    secrets = {name: f"secret-of-{name}" for name in re.findall(r"\$\{(\w+)\}", text)}
    return secrets | ({"REDIS_URL": "redis://redis"} if "REDIS_URL" in secrets else {})


def examples() -> list[Any]:
    fence = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
    found = [(path, text) for path in PAGES for text in fence.findall(path.read_text())]
    files = sorted(path for path in ROOT.glob("deploy/**/*.yaml") if "templates" not in path.parts)  # Helm's
    found += [(path, path.read_text()) for path in files]
    return [pytest.param(text, id=f"{path.name}-{number}") for number, (path, text) in enumerate(found)]


@pytest.mark.parametrize("text", examples())
def test_example_is_valid(text: str) -> None:
    """Each YAML example can be read; each one that configures models is a valid configuration."""
    documents = list(yaml.safe_load_all(text))

    assert all(documents)
    if len(documents) == 1 and isinstance(documents[0], dict) and "models" in documents[0]:
        assert parse(text, environ_for(text)).models


def test_there_is_an_example_configuration() -> None:
    """There is an example configuration with rules and keys."""
    text = (ROOT / "deploy" / "gateway.example.yaml").read_text()
    settings = parse(text, environ_for(text))

    assert settings.rules
    assert settings.keys


def test_commands_exist() -> None:
    """Each `thinkmeter COMMAND` in the documentation exists, and has arguments if it needs any."""
    text = "\n".join(path.read_text() for path in PAGES)
    written = set(re.findall(r"(?:^|`|\$ )thinkmeter ([a-z-]+)", text, re.MULTILINE))
    commands: Any = get_command(cli)

    assert_same(written | {"version"}, commands.commands, "README.md and docs/")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Each relative link leads to a file of this repository."""
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text())
    targets = [link for link in links if "://" not in link and not link.startswith("mailto:")]

    assert [target for target in targets if not (path.parent / target).exists()] == []
