"""The process in which a grader runs that may hang. Arguments: its name, its argument, seconds for a row.

It reads rows as lines of JSON, and writes a line for each. An alarm ends it when a row takes too long. That
works inside of a regular expression, too, and when the parent is gone.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from contextlib import suppress
from typing import Any

from gateway.evidence.grading.grade import Grader, ModelAnswer

_MEMORY = 4 << 30  # bytes
_START_SECONDS = 120  # to import the libraries on a busy machine


def grade_lines(name: str, argument: str, seconds: int) -> None:
    """Grade rows until there are no more."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_START_SECONDS)
    grader = _made(name, argument)
    for line in sys.stdin.buffer:
        signal.alarm(seconds)
        reply = json.dumps(_reply(grader, json.loads(line)))
        signal.alarm(0)
        sys.stdout.write(reply + "\n")
        sys.stdout.flush()


def _made(name: str, argument: str) -> Grader:
    if name == "regex":
        from gateway.evidence.grading.pattern import PatternGrader  # noqa: PLC0415 - each needs its own libraries

        return PatternGrader(argument)
    if name == "schema":
        from gateway.evidence.grading.json_schema import SchemaGrader  # noqa: PLC0415

        return SchemaGrader(argument)
    import math_verify  # noqa: F401, PLC0415 - imported now, so that it costs no row its time

    from gateway.evidence.grading.symbolic import SymbolicGrader  # noqa: PLC0415

    return SymbolicGrader()


def _reply(grader: Grader, row: dict[str, Any]) -> dict[str, Any]:
    try:
        if "check" in row:
            return {"problem": grader.check(row["check"])}
        grade = grader.grade(row["prompt"], row["reference"], ModelAnswer(row["text"], row["cut"]))
    except Exception as error:  # noqa: BLE001 - a fault of the library is one row's
        problem = f"the grader failed: {type(error).__name__}: {error}"[:300]
        return {"problem": problem, "score": None, "note": problem}
    return {"score": grade.score, "note": grade.note}


if __name__ == "__main__":
    grade_lines(sys.argv[1], sys.argv[2], int(sys.argv[3]))
