"""The answers of a run on disk: going on after any end, and refusing to mix runs."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.evidence.measuring.journal import AnswerJournal, JournalError, RunHead
from tests.evidence.measuring.making import answer, grade

HEAD = RunHead(
    "run1", "tiny", "served", "digest", {"temperature": 0.5}, {"direct": (0, 32), "long": (256, None)}
)


def opened(path: Path, head: RunHead = HEAD) -> AnswerJournal:
    return AnswerJournal.open(path, head)


def test_goes_on(tmp_path: Path) -> None:
    """What was added is there again, under the run's first name; only its owner can read the file."""
    path = tmp_path / "j"
    journal = opened(path)
    journal.add(answer("p1"))
    journal.add(answer("p2", "long", error="backend_error: x", text=""))
    journal.add(grade("p1", score=None, note="unclear"))
    journal.close()

    again = opened(path, replace(HEAD, run="run2"))

    assert again.head.run == "run1"
    assert list(again.answers) == [("p1", "direct", 0)]
    assert list(again.failed) == [("p2", "long", 0)]
    assert again.grades["exact", ("p1", "direct", 0)].note == "unclear"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again.close()


def test_answer_after_an_error(tmp_path: Path) -> None:
    """An answer takes the place of an error, also when the file is read again."""
    for journal in (opened(tmp_path / "j"),):
        journal.add(answer("p1", error="x", text=""))
        journal.add(answer("p1"))
        assert (list(journal.answers), journal.failed) == ([("p1", "direct", 0)], {})
        journal.close()

    journal = opened(tmp_path / "j")
    assert (list(journal.answers), journal.failed) == ([("p1", "direct", 0)], {})
    journal.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(cut=st.integers(0, 10_000), count=st.integers(0, 6))
def test_any_cut(tmp_path: Path, cut: int, count: int) -> None:
    """Wherever the file ends, every whole line counts, and what is added then is there the next time."""
    path = tmp_path / "j"
    path.unlink(missing_ok=True)
    journal = opened(path)
    for number in range(count):
        journal.add(answer(f"p{number}", text="ä\n\0" * number))
    journal.close()
    content = path.read_bytes()
    kept = content[: cut % (len(content) + 1)]
    path.write_bytes(kept)

    journal = opened(path)
    whole = max(kept.count(b"\n") - 1, 0)
    assert list(journal.answers) == [(f"p{number}", "direct", 0) for number in range(whole)]
    journal.add(answer("new"))
    journal.close()

    journal = opened(path)
    assert len(journal.answers) == whole + 1
    journal.close()


def test_last_line_that_the_disk_lost(tmp_path: Path) -> None:
    """A last line of zeros, as a crash of the machine leaves it, is dropped."""
    path = tmp_path / "j"
    journal = opened(path)
    journal.add(answer("p1"))
    journal.close()
    with path.open("ab") as file:
        file.write(b"\0" * 50 + b"\n")

    journal = opened(path)
    assert list(journal.answers) == [("p1", "direct", 0)]
    journal.close()


def test_broken_in_the_middle(tmp_path: Path) -> None:
    """A line that is broken in the middle is named, and nothing of the file is changed."""
    path = tmp_path / "j"
    journal = opened(path)
    journal.add(answer("p1"))
    journal.close()
    lines = path.read_bytes().split(b"\n")
    broken = b"\n".join([lines[0], b"broken", *lines[1:]])
    path.write_bytes(broken)

    with pytest.raises(JournalError, match=r"j:2: "):
        opened(path)
    assert path.read_bytes() == broken


def test_file_of_something_else(tmp_path: Path) -> None:
    """A file that does not begin as a journal does is refused."""
    path = tmp_path / "j"
    path.write_text('{"type":"answer","prompt":"p","rung":"r","sample":0,"at":1,"seconds":1}\n{}\n{}\n')

    with pytest.raises(JournalError):
        opened(path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model": "other"}, "another model"),
        ({"served": "other"}, "another served name"),
        ({"prompts": "other"}, "another prompts"),
        ({"fields": {}}, "another request fields"),
        ({"rungs": {"long": (128, None)}}, "the rung long was measured with other lengths"),
    ],
)  # fmt: skip
def test_other_arguments(tmp_path: Path, change: dict[str, object], what: str) -> None:
    """Answers of other prompts, of another model or at other lengths do not mix."""
    opened(tmp_path / "j").close()

    with pytest.raises(JournalError, match=what):
        opened(tmp_path / "j", replace(HEAD, **change))


def test_more_rungs(tmp_path: Path) -> None:
    """Rungs may be added, and those before them are still checked."""
    opened(tmp_path / "j").close()
    opened(tmp_path / "j", replace(HEAD, rungs={"short": (64, 32)})).close()

    journal = opened(tmp_path / "j")
    assert set(journal.head.rungs) == {"direct", "short", "long"}
    journal.close()


def test_two_processes(tmp_path: Path) -> None:
    """A second process is refused while one measures."""
    journal = opened(tmp_path / "j")

    with pytest.raises(JournalError, match="another process"):
        opened(tmp_path / "j")

    journal.close()
    opened(tmp_path / "j").close()
