"""Grades by the exit status of a command of the user's: 0 is right, 1 is wrong, others are no grade."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from gateway.evidence.grading.grade import Grade, Grader, GraderError, ModelAnswer, graded, ungraded
from gateway.evidence.grading.sandbox import Limits, run_limited

_FILES = {"answer": "answer.txt", "prompt": "prompt.txt", "reference": "reference.txt"}
_SHOWN = 250  # characters of standard error
_ENVIRON = {f"{name.upper()}_FILE": "{folder}/" + file for name, file in _FILES.items()}


class CommandGrader(Grader):
    """Runs a command for each answer, which it gets on standard input. See `run_limited`."""

    name = "command"
    needs_reference = False
    slow = True

    def __init__(self, command: str, limits: Limits) -> None:
        """`command` is split as a shell would; no shell runs it. Names of files are relative to here.

        Raises: GraderError.
        """
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise GraderError(f"`{command}`: {error}") from None
        program = shutil.which(words[0]) if words else None
        if not program:
            raise GraderError(f"`{command}` is not a command that can be run")
        # it runs in another folder
        self._command = [str(Path(program).absolute()), *map(_absolute, words[1:])]
        self._limits = limits

    def _grade(self, prompt: str, reference: str, answer: ModelAnswer) -> Grade:
        texts = {"answer": answer.text, "prompt": prompt, "reference": reference}
        files = {file: texts[name] for name, file in _FILES.items()}
        try:
            ran = run_limited(self._command, files, _FILES["answer"], _ENVIRON, self._limits)
        except OSError as error:
            return ungraded(f"the command could not be run: {error}")
        if ran.status is None:
            return ungraded(f"the command took longer than {self._limits.seconds} s")
        if ran.status == 0 or (ran.status == 1 and not _crashed(ran.stderr)):
            return graded(ran.status == 0)
        return ungraded(f"exit status {ran.status}: {ran.stderr[-_SHOWN:]}".rstrip(": "))


def _crashed(stderr: str) -> bool:
    """Python ends with status 1 after any uncaught exception; one of `assert` is a verdict."""
    last = stderr.rpartition("\n")[2]
    return "Traceback (most recent call last)" in stderr and not last.startswith("AssertionError")


def _absolute(word: str) -> str:
    return str(Path(word).absolute()) if Path(word).exists() else word
