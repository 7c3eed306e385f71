"""The commands `evidence list`, `evidence export` and `evidence delete`."""

from __future__ import annotations

import math
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.terminal import ConfigArgument, err, load_settings, out

if TYPE_CHECKING:
    from gateway.evidence.database import EvidenceStore

commands = typer.Typer()
_group = typer.Typer(no_args_is_help=True, help="List, export and delete the evidence that gateways keep.")
commands.add_typer(_group, name="evidence")

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_TABLES = ("decisions", "feedback", "shadow_pairs", "measurements", "candidate_decisions")


def moment(written: str, now: float) -> float:
    """The Unix time of an age such as `30d`, or of a date such as `2026-01-31` or `2026-01-31T12:00`.

    A date without a time zone is one of UTC. Raises: typer.BadParameter.
    """
    if age := re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", written):
        return now - float(age[1]) * _UNITS[age[2]]
    try:
        date = datetime.fromisoformat(written)
    except ValueError:
        raise typer.BadParameter(f"{written!r} is no age like 30d and no date like 2026-01-31") from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


@contextmanager
def evidence_store(config: Path) -> Iterator[EvidenceStore]:
    """The store of a configuration. Without one the command ends with status 2, and with 1 if it is away."""
    from gateway.evidence.database import EvidenceUnavailable, existing_store

    settings = load_settings(config)
    if settings.evidence is None:
        err.print(f"{config}: `evidence` is not configured, so that nothing is kept")
        raise typer.Exit(2)
    try:
        engine = existing_store(settings.evidence)
        try:
            yield engine
        finally:
            engine.dispose()
    except EvidenceUnavailable as error:
        err.print(f"the store of evidence cannot be used: {error}", style="red", soft_wrap=True)
        raise typer.Exit(1) from None


@_group.command("list")
def list_evidence(
    config: ConfigArgument,
    *,
    last: Annotated[int, typer.Option(min=0, help="Newest decisions to show.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how much is kept, from when, and the newest decisions."""
    import msgspec

    from gateway.evidence.exporting.selection import table_named
    from gateway.evidence.reading import newest_rows, store_bytes, table_states

    with evidence_store(config) as engine:
        states = table_states(engine)
        size = store_bytes(engine)
        newest = newest_rows(engine, table_named("decisions"), last)
    for row in newest:
        del row["rungs"], row["features"], row["prompt"]  # long; an export has them
    if as_json:
        typer.echo(msgspec.json.encode({"bytes": size, "tables": states, "newest": newest}))
        return
    out.print(
        _states_table([(s.table, f"{s.rows:,}", shown_date(s.first), shown_date(s.last)) for s in states])
    )
    out.print(f"{size / 2**20:,.1f} MiB in use")
    if newest:
        out.print(_newest_table(newest))


def _states_table(rows: list[tuple[str, ...]]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    shown = Table("table", "rows", "first", "last", box=SIMPLE_HEAD, pad_edge=False)
    shown.columns[1].justify = "right"
    for row in rows:
        shown.add_row(*row)
    return shown


def _newest_table(rows: list[dict[str, Any]]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    names = ("at", "key", "model", "arm", "tier", "rung", "status", "completion_tokens", "id")
    shown = Table(*(name.replace("_", " ") for name in names), box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        shown.add_row(
            *(shown_date(row[n]) if n == "at" else "" if row[n] is None else str(row[n]) for n in names)
        )
    return shown


def shown_date(at: float | None) -> str:
    """A Unix time in UTC; empty for None."""
    if at is None:
        return ""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):  # the clock of a gateway was wrong
        return f"{at:g}"


@_group.command("export")
def export_evidence(
    config: ConfigArgument,
    *,
    table: Annotated[str, typer.Option(help=f"One of {', '.join(_TABLES)}.")] = "decisions",
    to: Annotated[
        Path | None,
        typer.Option(help="File to write: .jsonl or .parquet. Default: JSON Lines to the output."),
    ] = None,
    since: Annotated[str | None, typer.Option(help="Age such as 7d, or a date (UTC).")] = None,
    until: Annotated[str | None, typer.Option(help="Age such as 1h, or a date (UTC).")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    key: Annotated[str | None, typer.Option(help="Only what this key asked and said.")] = None,
    conversation: Annotated[str | None, typer.Option(help="Only one conversation, or person.")] = None,
) -> None:
    """Write the rows of a table as JSON Lines or Parquet, oldest first."""
    if table not in _TABLES:
        raise typer.BadParameter(f"no table {table!r}; there are {', '.join(_TABLES)}", param_hint="--table")
    if to is not None and to.suffix not in (".jsonl", ".parquet"):
        raise typer.BadParameter(f"{to}: must end with .jsonl or .parquet", param_hint="--to")
    if table == "measurements" and (key is not None or conversation is not None):
        raise typer.BadParameter("measurements belong to no key and no conversation", param_hint="--table")
    from gateway.evidence.database import secret_of
    from gateway.evidence.exporting.files import write_jsonl, write_parquet
    from gateway.evidence.exporting.selection import Selection, table_named
    from gateway.evidence.rows import stored_names

    now = time.time()
    begin = -math.inf if since is None else moment(since, now)
    end = math.inf if until is None else moment(until, now)
    with evidence_store(config) as engine:
        secret = secret_of(engine)
        keys = None if key is None else stored_names(secret, key)
        conversations = None if conversation is None else stored_names(secret, conversation)
        some = Selection(begin, end, model, keys, conversations)
        if to is None:
            write_jsonl(engine, table_named(table), some, sys.stdout.buffer)
            return
        write = write_parquet if to.suffix == ".parquet" else write_jsonl
        try:
            with _replacing(to) as part, part.open("wb") as file:
                number = write(engine, table_named(table), some, file)
        except ModuleNotFoundError as error:
            err.print(f"Parquet needs the `parquet` extra: {error}")
            raise typer.Exit(1) from None
        except OSError as error:
            err.print(f"cannot write {to}: {error.strerror or error}")
            raise typer.Exit(1) from None
    err.print(f"{to}: {number:,} rows")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file beside the path, which replaces it once it is complete."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@_group.command("delete")
def delete_evidence(
    config: ConfigArgument,
    *,
    key: Annotated[str | None, typer.Option(help="What this key asked and said.")] = None,
    conversation: Annotated[str | None, typer.Option(help="One conversation, or person.")] = None,
    older_than: Annotated[str | None, typer.Option(help="An age such as 30d, or a date (UTC).")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All rows.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete decisions with their feedback and shadow pairs, for good."""
    if sum([key is not None, conversation is not None, older_than is not None, everything]) != 1:
        raise typer.BadParameter("give one of --key, --conversation, --older-than and --all")
    before = None if older_than is None else moment(older_than, time.time())
    what = (
        f"all of key {key!r}"
        if key is not None
        else f"conversation {conversation!r}"
        if conversation is not None
        else "EVERYTHING"
        if before is None
        else f"what is older than {shown_date(before)} UTC"
    )
    with evidence_store(config) as engine:
        if not yes:
            typer.confirm(f"Delete {what} from the store of evidence?", abort=True)
        found, erased = _delete(engine, key, conversation, before)
    for name in _TABLES:
        out.print(f"{name}: {found[name]:,} deleted")
    if not erased:
        err.print("copies may remain in the -wal file, which another process kept in use: run this again")
        raise typer.Exit(1)


def _delete(
    engine: EvidenceStore, key: str | None, conversation: str | None, before: float | None
) -> tuple[Counter[str], bool]:
    """Rows deleted by table, and whether no copy is left."""
    from gateway.evidence import deleting
    from gateway.evidence.database import secret_of

    if key is not None:
        found = deleting.delete_key(engine, secret_of(engine), key)
    elif conversation is not None:
        found = deleting.delete_conversation(engine, secret_of(engine), conversation)
    elif before is not None:
        found = deleting.delete_before(engine, before)
    else:
        found = deleting.delete_everything(engine)
    return found, deleting.erase(engine)
