"""Runs the `thinkmeter` command in this process, and writes configuration files for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from click.testing import Result
from typer.testing import CliRunner

from gateway.cli import main as cli


def run(*arguments: str, stdin: str | None = None, **environ: str) -> Result:
    """Run the command. Any exception other than its exit fails the test."""
    result = CliRunner().invoke(cli.cli, list(arguments), input=stdin, env=environ)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def write(folder: Path, settings: Any) -> str:
    """Write a configuration file and return its path."""
    path = folder / "thinkmeter.yaml"
    path.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings, sort_keys=False))
    return str(path)
