"""The command `budget`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import orjson
import typer

from gateway.cli.terminal import ConfigArgument, err, load_settings, out

commands = typer.Typer()


@commands.command()
def budget(
    config: ConfigArgument,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Keep looking until interrupted.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show who has spent how much of which budget."""
    from rich.live import Live

    from gateway.budget.overview import admin_row
    from gateway.cli.budget_table import read_windows, watch_windows, windows_table
    from gateway.store.connection import StoreUnavailable
    from gateway.store.embedded import RedisServerError

    settings = load_settings(config)
    if not settings.budgets:
        err.print(f"{config}: no budgets are configured")
        raise typer.Exit(2)
    directory = Path(settings.redis.directory).absolute()
    if not settings.redis.url and not directory.exists():
        hint = "run this where the gateway runs, or give `redis.directory` as an absolute path"
        err.print(f"no gateway has kept budgets in {directory} yet: {hint}", soft_wrap=True)
        raise typer.Exit(1)
    try:
        if watch:
            with Live(console=out, auto_refresh=False) as live, suppress(KeyboardInterrupt):
                asyncio.run(watch_windows(settings, lambda shown: live.update(shown, refresh=True)))
            return
        found = asyncio.run(read_windows(settings))
    except (StoreUnavailable, RedisServerError) as error:
        err.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(orjson.dumps([admin_row(row) for row in found]))
    else:
        out.print(windows_table(found))
