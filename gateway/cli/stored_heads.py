"""The commands `heads list`, `show`, `add`, `promote` and `rollback`."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.evidence import evidence_store, shown_date
from gateway.cli.heads import fail
from gateway.cli.terminal import ConfigArgument, err, load_settings, out

if TYPE_CHECKING:
    from gateway.evidence.database import EvidenceStore
    from gateway.evidence.rows import HeadRow, PromotionRow

commands = typer.Typer()
_group = typer.Typer(no_args_is_help=True, help="Heads in the store of evidence: which one decides.")
commands.add_typer(_group, name="heads")

Version = Annotated[str, typer.Argument(help="Its version, or the beginning of it.")]
Why = Annotated[str, typer.Option(help="The reason, for the log of promotions.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def _store(config: Path) -> Iterator[EvidenceStore]:
    """The store; what is wrong with a head ends the command with status 1."""
    from gateway.evidence.heads.log import HeadProblem

    with evidence_store(config) as engine:
        try:
            yield engine
        except HeadProblem as error:
            err.print(str(error), style="red", soft_wrap=True, highlight=False)
            raise typer.Exit(1) from None


@_group.command("list")
def list_heads_command(config: ConfigArgument, *, as_json: AsJson = False) -> None:
    """Show the heads in the store, and the log of promotions."""
    import msgspec

    from gateway.evidence.heads.archive import list_heads, promotion_log

    with _store(config) as engine:
        rows, log = list_heads(engine), promotion_log(engine)
    if as_json:
        typer.echo(msgspec.json.encode({"heads": rows, "promotions": log}))
        return
    if not rows and not log:
        out.print("no heads; `thinkmeter heads add` keeps one", soft_wrap=True)
        return
    out.print(_heads_table(rows))
    if log:
        out.print(_log_table(log))


def _heads_table(rows: list[HeadRow]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    shown = Table("version", "added", "state", "models", "gate", box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        verdict = row.verdict
        gate = "" if verdict is None else "passes" if verdict.get("passes") else "refused"
        shown.add_row(row.version, shown_date(row.made_at), row.state, ", ".join(row.models), gate)
    return shown


def _log_table(log: list[PromotionRow]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    shown = Table("at", "what", "head", "by", "why", box=SIMPLE_HEAD, pad_edge=False)
    for line in log:
        head = line.head or "of the configuration"
        shown.add_row(shown_date(line.at), line.action, head, line.by, line.why)
    return shown


@_group.command("show")
def show_head(config: ConfigArgument, version: Version) -> None:
    """Show a head as JSON: what it knows, and what the gate says about it."""
    import msgspec

    from gateway.evidence.heads.archive import find_head

    with _store(config) as engine:
        found = msgspec.json.encode(find_head(engine, version))
    typer.echo(msgspec.json.format(found, indent=2))


@_group.command("add")
def add_head_command(
    config: ConfigArgument,
    directory: Annotated[Path, typer.Argument(help="The head's directory, as `train --out` wrote it.")],
) -> None:
    """Keep a head in the store, as a candidate. It decides nothing."""
    from gateway.evidence.heads.archive import add_head
    from router_model.artifact import ArtifactError, pack_artifact
    from router_model.encoders.base import Source
    from router_model.head import Head

    encoder = load_settings(config).encoder
    try:
        packed = pack_artifact(directory)
        head = Head.unpack(packed, str(directory), Source(encoder.source) if encoder else None)
    except (ArtifactError, OSError) as error:
        fail(error)
    with _store(config) as engine:
        version = add_head(engine, packed, head)
    out.print(f"{version} is kept, and knows {', '.join(head.sets)}", soft_wrap=True, highlight=False)


@_group.command("promote")
def promote_command(
    config: ConfigArgument,
    version: Version,
    *,
    why: Why = "",
    anyway: Annotated[bool, typer.Option("--anyway", help="Whatever the gate says.")] = False,
) -> None:
    """Let a head decide, on all gateways of the store within some seconds."""
    from gateway.evidence.heads.promoting import promote_checked

    settings = load_settings(config)
    with _store(config) as engine:
        line = promote_checked(engine, version, settings, by=_who(), why=why, anyway=anyway)
    _tell(line)


@_group.command("rollback")
def rollback_command(config: ConfigArgument, *, why: Why = "") -> None:
    """Let the head before decide again, on all gateways of the store within some seconds."""
    from gateway.evidence.heads.archive import roll_back

    with _store(config) as engine:
        line = roll_back(engine, by=_who(), why=why)
    _tell(line)


def _tell(line: PromotionRow) -> None:
    names = [head or "the head of the configuration" for head in (line.previous, line.head)]
    out.print(" → ".join(names), soft_wrap=True, highlight=False)


def _who() -> str:
    """Who runs the command."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a container may run as a user without a name
        return f"somebody@{socket.gethostname()}"
