"""Outcome tables: what happened when prompts ran at tiers. Reading, validation, merging, folds by prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from router_model.arrays import Floats, Ints
from router_model.files import FileError, gunzipped, parquet_records
from router_model.prompts import normalised, places

FOLDS = 5
"""Parts of every cross-validation and cross-fitting."""


FEWEST = 20
"""Outcomes of a tier below which nothing is learnt of it."""


class OutcomeError(ValueError):
    """The table cannot be used. If a line is at fault, the message begins with `file:line:`."""


class _Outcome(msgspec.Struct):
    correct: Annotated[float, msgspec.Meta(ge=0, le=1)]
    tokens: Annotated[float, msgspec.Meta(ge=0, lt=1e9)]
    n: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1
    thinking: Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)] | None = None


class _Row(msgspec.Struct):
    prompt: Annotated[str, msgspec.Meta(min_length=1)]
    tiers: Annotated[dict[str, _Outcome], msgspec.Meta(min_length=1)]
    id: str | int | None = None
    dataset: str | None = None
    category: str | None = None


@dataclass(frozen=True)
class OutcomeTable:
    """N prompts at T tiers. No two prompts are the same once normalised."""

    name: str
    ids: tuple[str, ...]
    datasets: tuple[str, ...]
    prompts: tuple[str, ...]
    tiers: tuple[str, ...]
    correct: Floats
    """Share of right answers in [0, 1], [N, T]; NaN where nothing was measured."""
    tokens: Floats
    """Mean completion tokens, [N, T]; NaN where nothing was measured."""
    samples: Ints
    """Generations behind each cell, [N, T]; 0 where nothing was measured."""
    digest: str
    """SHA-256 of the file."""
    lengths: Mapping[str, float] = field(default_factory=dict)
    """Thinking budgets in tokens, of the tiers whose cells state one."""
    categories: tuple[str, ...] = ()
    """What kind of prompt each row is, "" where unknown, [N]; empty if no row says."""

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def content(self) -> str:
        """A hash of everything that training reads. Unlike `digest` it differs between parts of one table."""
        said = repr((self.name, self.tiers, dict(self.lengths), self.prompts))
        whole = hashlib.sha256(said.encode("utf-8", "surrogatepass"))
        for cells in (self.correct, self.tokens, self.samples):
            whole.update(cells.tobytes())
        return whole.hexdigest()

    def take(self, rows: ArrayLike) -> OutcomeTable:
        """The rows at these positions, or where a boolean mask is true."""
        index = np.asarray(rows)
        positions = np.flatnonzero(index) if index.dtype == np.bool_ else index.astype(np.int64)
        return replace(
            self,
            ids=tuple(self.ids[i] for i in positions),
            datasets=tuple(self.datasets[i] for i in positions),
            prompts=tuple(self.prompts[i] for i in positions),
            correct=self.correct[positions],
            tokens=self.tokens[positions],
            samples=self.samples[positions],
            categories=tuple(self.categories[i] for i in positions) if self.categories else (),
        )

    def select(self, tiers: Sequence[str]) -> OutcomeTable:
        """Only these tiers, in this order, and only the rows that have all of them.

        Raises: OutcomeError.
        """
        unknown = [tier for tier in tiers if tier not in self.tiers]
        if unknown:
            raise OutcomeError(f"{self.name}: no tier {unknown[0]!r}; there are {', '.join(self.tiers)}")
        columns = [self.tiers.index(tier) for tier in tiers]
        table = replace(
            self,
            tiers=tuple(tiers),
            correct=self.correct[:, columns],
            tokens=self.tokens[:, columns],
            samples=self.samples[:, columns],
            lengths={tier: self.lengths[tier] for tier in tiers if tier in self.lengths},
        )
        return table.take((table.samples > 0).all(axis=1))


def check_enough(table: OutcomeTable, purpose: str) -> None:
    """Refuse a table from which no curves can be learnt.

    purpose: what the table is for, for the message. Raises: OutcomeError.
    """
    if len(table) < FEWEST:
        raise OutcomeError(f"{table.name}: {len(table)} prompts are too few to {purpose} on; give {FEWEST}")
    if len(table.tiers) < 2:
        raise OutcomeError(f"{table.name}: {table.tiers[0]} is its only tier, so there is nothing to choose")
    for column, tier in enumerate(table.tiers):
        known = int((table.samples[:, column] > 0).sum())
        if known < FEWEST:
            raise OutcomeError(
                f"{table.name}: {known} outcomes of the tier {tier} are too few to {purpose} on;"
                f" give {FEWEST} or leave the tier out"
            )


def read_table(
    path: str | Path, tiers: Sequence[str] | None = None, *, partial: bool = False
) -> OutcomeTable:
    """Read JSON Lines (`.jsonl`, `.jsonl.gz`) or Parquet (`.parquet`, needs pyarrow).

    tiers: the tiers to keep, in this order; rows that lack one are dropped. None keeps the tiers that every
    row has. partial: keep every tier and leave missing cells as NaN with 0 samples.
    Rows with the same normalised prompt become one, weighted by their samples.

    Raises: OutcomeError, with `file:line: message` (a row number for Parquet).
    """
    source = Path(path)
    try:
        content = source.read_bytes()
    except OSError as error:
        raise OutcomeError(f"{source}: {error.strerror or error}") from None
    rows = _parquet(source, content) if source.suffix == ".parquet" else list(_lines(source, content))
    if not rows:
        raise OutcomeError(f"{source}: no outcomes")
    table = _merged(_tabulated(source, rows, hashlib.sha256(content).hexdigest()))
    if tiers is None and not partial:
        tiers = [tier for column, tier in enumerate(table.tiers) if (table.samples[:, column] > 0).all()]
        if not tiers:
            raise OutcomeError(f"{source}: no tier has an outcome in every row; name the tiers to use")
    if tiers is not None:
        table = table.select(tiers)
        if not len(table):
            raise OutcomeError(f"{source}: no row has all of the tiers {', '.join(tiers)}")
    return table


def _lines(source: Path, content: bytes) -> Iterator[_Row]:
    decoder = msgspec.json.Decoder(_Row)
    try:
        text = gunzipped(content)
    except FileError as error:
        raise OutcomeError(f"{source}: {error}") from None
    for number, line in enumerate(text.split(b"\n"), 1):
        if line.strip():
            try:
                yield decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise OutcomeError(f"{source}:{number}: {error}") from None


def _parquet(source: Path, content: bytes) -> list[_Row]:
    try:
        records = parquet_records(content)
    except FileError as error:
        raise OutcomeError(f"{source}: {error}") from None
    rows = []
    for number, record in enumerate(records, 1):
        try:
            rows.append(msgspec.convert(_plain(record), _Row))
        except msgspec.ValidationError as error:
            raise OutcomeError(f"{source}:{number}: {error}") from None
    return rows


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """The record in the form that JSON has.

    A struct column has every tier in every row and every field in every tier, null if absent. A map column
    gives pairs. Data frames turn whole numbers into floats.
    """
    present = {name: value for name, value in record.items() if value is not None}
    tiers = present.get("tiers")
    if isinstance(tiers, list) and all(isinstance(pair, tuple) for pair in tiers):
        tiers = dict(tiers)
    if isinstance(tiers, dict):
        present["tiers"] = {name: _cell(cell) for name, cell in tiers.items() if cell is not None}
    return present


def _cell(cell: Any) -> Any:
    if not isinstance(cell, dict):
        return cell
    known = {name: value for name, value in cell.items() if value is not None}
    whole = {
        name: int(known[name])
        for name in ("n", "thinking")
        if isinstance(known.get(name), float) and known[name].is_integer()
    }
    return known | whole


def _tabulated(source: Path, rows: Sequence[_Row], digest: str) -> OutcomeTable:
    name = source.name.split(".")[0]
    tiers = tuple(dict.fromkeys(tier for row in rows for tier in row.tiers))
    column = {tier: at for at, tier in enumerate(tiers)}
    correct = np.full((len(rows), len(tiers)), np.nan)
    tokens = np.full_like(correct, np.nan)
    samples = np.zeros(correct.shape, np.int64)
    for at, row in enumerate(rows):
        for tier, cell in row.tiers.items():
            correct[at, column[tier]] = cell.correct
            tokens[at, column[tier]] = cell.tokens
            samples[at, column[tier]] = cell.n
    return OutcomeTable(
        name=name,
        ids=tuple(str(at) if row.id is None else str(row.id) for at, row in enumerate(rows)),
        datasets=tuple(row.dataset or name for row in rows),
        prompts=tuple(row.prompt for row in rows),
        tiers=tiers,
        correct=correct,
        tokens=tokens,
        samples=samples,
        digest=digest,
        lengths=_lengths(source, rows),
        categories=tuple(row.category or "" for row in rows) if any(row.category for row in rows) else (),
    )


def _lengths(source: Path, rows: Sequence[_Row]) -> dict[str, float]:
    """The thinking budget of each tier whose cells state one.

    Raises: OutcomeError, if two cells of one tier state different ones.
    """
    found: dict[str, float] = {}
    for row in rows:
        for tier, cell in row.tiers.items():
            if cell.thinking is not None and found.setdefault(tier, cell.thinking) != cell.thinking:
                raise OutcomeError(
                    f"{source}: tier {tier!r} has the thinking budgets {found[tier]} and {cell.thinking};"
                    " give each budget a tier of its own"
                )
    return found


def _merged(table: OutcomeTable) -> OutcomeTable:
    """One row per normalised prompt, named after the first one; cells are means weighted by samples."""
    first: dict[str, int] = {}
    group = np.array([first.setdefault(normalised(prompt), len(first)) for prompt in table.prompts])
    if len(first) == len(table):
        return table
    samples = np.zeros((len(first), len(table.tiers)), np.int64)
    np.add.at(samples, group, table.samples)

    def mean(cells: Floats) -> Floats:
        total = np.zeros(samples.shape)
        np.add.at(total, group, np.nan_to_num(cells) * table.samples)
        means: Floats = np.divide(total, samples, out=np.full(samples.shape, np.nan), where=samples > 0)
        return means

    kept = table.take(np.unique(group, return_index=True)[1])
    return replace(kept, correct=mean(table.correct), tokens=mean(table.tokens), samples=samples)


def folds(table: OutcomeTable, count: int, seed: int) -> Ints:
    """The fold of each row, in [0, count), [N]. It depends on the prompt alone, so all tables agree."""
    return (places(table.prompts, seed) * count).astype(np.int64)


def log_tokens(table: OutcomeTable) -> Floats:
    """ln(tokens), counting at least one token; 0 where unknown. [N, T]"""
    logs: Floats = np.log(np.maximum(np.nan_to_num(table.tokens), 1.0))
    return logs
