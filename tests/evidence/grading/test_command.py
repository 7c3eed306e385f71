"""The grader that runs a command of the user's."""

from __future__ import annotations

import fcntl
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.evidence.grading.command import CommandGrader
from gateway.evidence.grading.grade import Grade, GraderError, ModelAnswer
from gateway.evidence.grading.sandbox import Limits, namespaces


def grade(script: str, text: str = "42", **limits: int) -> Grade:
    return CommandGrader(f"sh -c {shlex.quote(script)}", Limits(**limits)).grade(
        "asked", "known", ModelAnswer(text)
    )


@pytest.fixture(params=["namespaces", "plain"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With namespaces, where they are permitted, and without."""
    namespaces.cache_clear()
    if request.param == "plain":
        monkeypatch.setattr("gateway.evidence.grading.sandbox._NAMESPACES", ["--no-such-option"])
    elif not namespaces():
        pytest.skip("no namespaces here")
    yield
    namespaces.cache_clear()


@pytest.mark.usefixtures("either")
def test_exit_status() -> None:
    """0 is right, 1 is wrong, and anything else is no grade."""
    assert grade('test "$(cat)" = 42') == Grade(1)
    assert grade('test "$(cat)" = 42', "43") == Grade(0)
    assert grade("echo no database >&2; exit 3") == Grade(None, "exit status 3: no database")
    assert grade("kill -9 $$").score is None


def test_files() -> None:
    script = 'test "$(cat "$ANSWER_FILE" "$PROMPT_FILE" "$REFERENCE_FILE")" = "42askedknown" || exit 5'

    assert grade(script) == Grade(1)


def test_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "x")

    assert grade('test -z "$SECRET_KEY" && test "$HOME" = "$PWD"') == Grade(1)


def test_folder_is_removed(tmp_path: Path) -> None:
    grade(f"echo $PWD > {tmp_path}/seen; echo x > more")

    assert not Path((tmp_path / "seen").read_text().strip()).exists()


@pytest.mark.usefixtures("either")
@pytest.mark.skipif(not shutil.which("flock"), reason="needs flock")
def test_time_limit_ends_all_processes(tmp_path: Path) -> None:
    """A lock that a process in the background holds is free again."""
    lock = tmp_path / "lock"
    late = grade(f"flock {lock} sleep 300 & sleep 300", seconds=1)

    assert late == Grade(None, "the command took longer than 1 s")
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def test_memory_and_files_are_limited() -> None:
    """A script that runs into a limit is no verdict."""
    assert grade("head -c 2000000 /dev/zero > big || exit 4", file=1_000_000).score is None
    python = CommandGrader("python3 -c 'bytearray(1 << 30)'", Limits(memory=256 << 20))
    assert python.grade("", None, ModelAnswer("a")).score is None


def test_no_network() -> None:
    if not namespaces():
        pytest.skip("no namespaces here")
    script = "import socket; socket.create_connection(('127.0.0.1', 9), 1)"
    refused = CommandGrader(f"python3 -c {shlex.quote(script)}", Limits()).grade("", None, ModelAnswer("a"))

    assert "unreachable" in str(refused.note)


def test_exception_of_python_is_a_crash_and_an_assertion_a_verdict() -> None:
    """Both end with status 1."""
    crash = CommandGrader("python3 -c 'import nothing_of_this_name'", Limits()).grade(
        "", None, ModelAnswer("a")
    )
    verdict = CommandGrader("python3 -c 'assert False'", Limits()).grade("", None, ModelAnswer("a"))

    assert crash.score is None
    assert verdict == Grade(0)


def test_names_of_files_are_relative_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "check.sh").write_text("test $(cat) = 42")
    monkeypatch.chdir(tmp_path)

    assert CommandGrader("sh check.sh", Limits()).grade("", None, ModelAnswer("42")) == Grade(1)


@pytest.mark.parametrize("command", ["", "./no-such-file", "'"])
def test_commands_that_cannot_run(command: str) -> None:
    with pytest.raises(GraderError):
        CommandGrader(command, Limits())
