"""What all commands share: the terminal, the configuration argument, the report of a bad configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from gateway.config.loader import ConfigError, load, reachable_example_keys, read_file
from gateway.config.settings import Settings

if TYPE_CHECKING:
    from gateway.snapshot import Snapshot

out, err = Console(markup=False), Console(stderr=True, markup=False)

ConfigArgument = Annotated[
    Path, typer.Argument(help="The configuration file (YAML).", envvar="THINKMETER_CONFIG")
]


def load_settings(path: Path) -> Settings:
    with _explained(path):
        return load(path)[0]


def build_snapshot(path: Path) -> Snapshot:
    """The settings, and everything built from them: the head is opened and tried."""
    return read_snapshot(path)[1]


def read_snapshot(path: Path) -> tuple[bytes, Snapshot]:
    """The file, and everything built from it."""
    from gateway.snapshot import Snapshot

    with _explained(path):
        raw = read_file(path)
        return raw, Snapshot.read(raw)


def refuse_example_keys(path: Path, settings: Settings, host: str) -> None:
    """Exit if others can reach the host that will be listened on, and everybody knows one of the keys."""
    with _explained(path):
        if problems := reachable_example_keys(settings, lambda: read_file(path), host):
            raise ConfigError(problems)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Print the problems of a configuration and exit with status 2."""
    try:
        yield
    except ConfigError as error:
        for problem in error.problems:
            err.print(f"{path}: {problem}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from None
