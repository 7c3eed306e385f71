"""The `thinkmeter` command: all its subcommands."""

from __future__ import annotations

import typer

from gateway.cli import budget, evidence, heads, measure, results, serving, simulate, stored_heads

cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
for group in (
    *(serving.commands, budget.commands, evidence.commands),
    *(heads.commands, stored_heads.commands, measure.commands, results.commands, simulate.commands),
):
    cli.add_typer(group)


def main() -> None:
    """Run the command that the arguments name."""
    cli()
