"""Runs graders that may hang or crash in processes of their own.

A regular expression of a user and a symbolic comparison may never finish, and no other thread runs meanwhile.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from queue import LifoQueue
from typing import Any

from gateway.evidence.grading.grade import Grade, Grader, ModelAnswer, ungraded

_ROOT = Path(__file__).parents[3]


class GraderCrashed(Exception):  # noqa: N818 - named after what happened
    """The process of a grader ended before it answered."""


class IsolatedGrader(Grader):
    """Grades in a few processes. A row over the time limit, or that crashes its process, gets no grade."""

    slow = True

    def __init__(
        self, name: str, argument: str, processes: int, seconds: int, *, needs_reference: bool = True
    ) -> None:
        """`name` and `argument`: see `gateway.evidence.grading.worker`. seconds: limit of a row."""
        self.name = name
        self.needs_reference = needs_reference
        self._start = [name, argument, str(seconds)]
        self._idle: LifoQueue[_Process] = LifoQueue()
        for _ in range(processes):
            self._idle.put(_Process(self._start))
        self._processes = processes
        self._limit = f"took longer than {seconds} s"

    def check(self, reference: str | None) -> str | None:
        """Why no answer can be graded by this reference."""
        if not self.needs_reference:
            return None
        try:
            return self._ask({"check": reference})["problem"]  # type: ignore[no-any-return]
        except GraderCrashed as crash:
            return str(crash)

    def grade(self, prompt: str, reference: str | None, answer: ModelAnswer) -> Grade:
        """Grade an answer in one of the processes; wait for one that is free."""
        try:
            reply = self._ask(
                {"prompt": prompt, "reference": reference, "text": answer.text, "cut": answer.cut}
            )
        except GraderCrashed as crash:
            return ungraded(str(crash))
        return Grade(reply["score"], reply["note"])

    def close(self) -> None:
        """End the processes, after the rows that they grade."""
        for process in [self._idle.get() for _ in range(self._processes)]:
            process.stop()
            self._idle.put(process)

    def _ask(self, row: dict[str, Any]) -> dict[str, Any]:
        process = self._idle.get()
        try:
            return process.ask(row)
        except TimeoutError:
            raise GraderCrashed(self._limit) from None
        finally:
            self._idle.put(process)

    def _grade(self, prompt: str, reference: str, answer: ModelAnswer) -> Grade:
        raise NotImplementedError


class _Process:
    """A process of `gateway.evidence.grading.worker`, started when it is first used."""

    def __init__(self, arguments: list[str]) -> None:
        self._arguments = arguments
        self._running: subprocess.Popen[bytes] | None = None

    def ask(self, row: dict[str, Any]) -> dict[str, Any]:
        """Send a row and read the reply.

        Raises: TimeoutError, GraderCrashed.
        """
        running = self._running = self._running or self._started()
        reply = b""
        with suppress(OSError):  # it has ended
            running.stdin.write(json.dumps(row).encode() + b"\n")  # type: ignore[union-attr]
            running.stdin.flush()  # type: ignore[union-attr]
            reply = running.stdout.readline()  # type: ignore[union-attr]
        if reply.endswith(b"\n"):
            return json.loads(reply)  # type: ignore[no-any-return]
        status = self.stop()
        if status == -signal.SIGALRM:  # the alarm that the process sets for each row
            raise TimeoutError
        raise GraderCrashed(f"the grader's process ended with status {status}")

    def stop(self) -> int | None:
        """End the process, and return its status."""
        running, self._running = self._running, None
        if not running:
            return None
        with suppress(OSError):
            running.stdin.close()  # type: ignore[union-attr]
        running.stdout.close()  # type: ignore[union-attr]
        try:
            return running.wait(1)
        except subprocess.TimeoutExpired:
            running.kill()
            return running.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - this package's own module
            [sys.executable, "-m", "gateway.evidence.grading.worker", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=_ROOT,  # where `-m` looks first: not in the folder of the user
            start_new_session=True,  # Ctrl-C is for the parent
        )
