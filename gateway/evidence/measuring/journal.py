"""The file in which a run keeps its answers and grades, a line each, so that it can go on after any end.

A line is written by one system call, and a line that a crash cut off is dropped, so a process that is killed
loses at most the answers that were on their way.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gateway.evidence.grading.verdict import Verdicts
from gateway.evidence.measuring.work import AnswerKey

_VERSION = 1


class JournalError(ValueError):
    """The file cannot be continued."""


class RunHead(Struct, tag="run", frozen=True, omit_defaults=True):
    """What all answers of a file have in common."""

    run: str
    """Names the run in the store of evidence."""
    model: str
    served: str
    """Its name at the replicas."""
    prompts: str
    """The digest of the prompts."""
    fields: dict[str, Any]
    """Fields of every request, such as `temperature`."""
    rungs: dict[str, tuple[int, int | None]]
    """(thinking tokens, tokens for the answer) by name."""
    version: int = _VERSION


class MeasuredAnswer(Struct, tag="answer", frozen=True, omit_defaults=True):
    """One answer, or the error that came in its place."""

    prompt: str
    rung: str
    sample: int
    at: float
    """Unix time."""
    seconds: float
    """How long it took."""
    text: str = ""
    tokens: int | None = None
    """Completion tokens, reasoning included; None if the backend did not count them."""
    reasoning: int | None = None
    prompt_tokens: int | None = None
    finish: str | None = None
    budget_sent: bool = True
    """The backend took the thinking budget, or the rung has none."""
    error: str | None = None
    """Why there is no answer."""

    @property
    def key(self) -> AnswerKey:
        return AnswerKey(self.prompt, self.rung, self.sample)


class GivenGrade(Struct, tag="grade", frozen=True, omit_defaults=True):
    """What a grader said about one answer."""

    prompt: str
    rung: str
    sample: int
    by: str
    """The grader, as the option names it."""
    rubric: str
    """Names what it graded by: see `MeasuredPrompt.rubric`."""
    score: float | None = None
    """1 is right, 0 is wrong; None if it could not tell."""
    note: str | None = None
    verdicts: Verdicts | None = None
    """What a judge said, if it was asked."""

    @property
    def key(self) -> AnswerKey:
        return AnswerKey(self.prompt, self.rung, self.sample)


_Line = RunHead | MeasuredAnswer | GivenGrade
_decoder = msgspec.json.Decoder(_Line)
_encoder = msgspec.json.Encoder()


class AnswerJournal:
    """The answers and grades of one run, in memory and on disk. One process at a time has it open."""

    def __init__(self, path: Path, descriptor: int, head: RunHead) -> None:
        self.path = path
        self.head = head
        self.answers: dict[AnswerKey, MeasuredAnswer] = {}
        """Those without an error."""
        self.failed: dict[AnswerKey, MeasuredAnswer] = {}
        """Those that ended in an error, and were not asked for again with more luck."""
        self.grades: dict[tuple[str, AnswerKey], GivenGrade] = {}
        """By grader and answer."""
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: Path, head: RunHead) -> Self:
        """Open the journal of a run, which may have begun earlier. Others cannot read the file.

        Raises: JournalError, also if it belongs to a run with other prompts, another model or other fields.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(f"{path}: {error.strerror or error}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            journal = cls(path, descriptor, head)
            journal._read(path.read_bytes(), head)
        except BlockingIOError:
            os.close(descriptor)
            raise JournalError(f"{path}: another process is measuring into it") from None
        except BaseException:
            os.close(descriptor)
            raise
        return journal

    def add(self, line: MeasuredAnswer | GivenGrade) -> None:
        """Keep an answer or a grade. Raises: OSError."""
        self._take(line)
        self._write(line)

    def sync(self) -> None:
        """Have the disk write what was added. It can take long."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    def _read(self, content: bytes, head: RunHead) -> None:
        lines, whole = content.split(b"\n")[:-1], content.rfind(b"\n") + 1
        known: RunHead | None = None
        for number, text in enumerate(lines, 1):
            try:
                line = _decoder.decode(text)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                if number == len(lines):  # the machine stopped before the disk had all of it
                    whole -= len(text) + 1
                    break
                raise JournalError(f"{self.path}:{number}: {error}") from None
            if isinstance(line, RunHead):
                known = line
            elif known is None:
                raise JournalError(f"{self.path}: it does not begin as the answers of a run do")
            else:
                self._take(line)
        if whole < len(content):
            os.ftruncate(self._descriptor, whole)
        self.head = head if known is None else _continued(self.path, known, head)
        if self.head != known:
            self._write(self.head)

    def _take(self, line: MeasuredAnswer | GivenGrade) -> None:
        if isinstance(line, GivenGrade):
            self.grades[line.by, line.key] = line
        elif line.error is not None:
            self.failed[line.key] = line
        else:
            self.failed.pop(line.key, None)
            self.answers[line.key] = line

    def _write(self, line: _Line) -> None:
        data = memoryview(_encoder.encode(line) + b"\n")
        while data:
            data = data[os.write(self._descriptor, data) :]


def _continued(path: Path, known: RunHead, head: RunHead) -> RunHead:
    """The head of a run that goes on, with the rungs that are new. Raises: JournalError."""
    if known.version != _VERSION:
        raise JournalError(f"{path}: written by another version of Thinkmeter")
    for what in ("model", "served", "prompts", "fields"):
        if getattr(known, what) != getattr(head, what):
            said = {"served": "served name", "fields": "request fields"}.get(what, what)
            raise JournalError(
                f"{path}: it holds answers to other arguments (another {said}); name another --out,"
                " or delete the file"
            )
    _same_rungs(path, known.rungs, head.rungs)
    return replace(known, rungs=known.rungs | head.rungs)


def _same_rungs(
    path: Path, known: Mapping[str, tuple[int, int | None]], now: Mapping[str, tuple[int, int | None]]
) -> None:
    for name, length in now.items():
        if known.get(name, length) != length:
            raise JournalError(
                f"{path}: the rung {name} was measured with other lengths; name another --out, or delete the"
                " file"
            )
