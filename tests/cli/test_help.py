"""`thinkmeter version`, and the help."""

from __future__ import annotations

from gateway import __version__
from tests.cli.command import run


def test_version() -> None:
    """The version stands alone on its line."""
    assert run("version").stdout == f"{__version__}\n"


def test_no_command_shows_the_help() -> None:
    """Without arguments, `thinkmeter` lists its commands."""
    shown = run().output

    for command in ("serve", "check", "probe", "route", "hash-key", "version"):
        assert command in shown
