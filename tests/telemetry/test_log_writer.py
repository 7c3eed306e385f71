"""Log lines are written in order from a thread, and dropped and counted where they cannot be written."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.telemetry.log_writer import LogWriter, StandardStreams, incomplete

LINES = [b"line %d\n" % number for number in range(5_000)]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe: the end to read from, and the one to write to."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def received(reader: int, size: int) -> bytes:
    """So many bytes from a pipe."""
    data = b""
    while len(data) < size:
        data += os.read(reader, size - len(data))
    return data


@pytest.mark.parametrize("blocking", [True, False])
def test_lines_keep_their_order(pipe: tuple[int, int], *, blocking: bool) -> None:
    """Every line arrives, in order, also through a descriptor that does not block."""
    reader, end = pipe
    os.set_blocking(end, blocking)
    writer = LogWriter("stdout", end)
    for line in LINES:
        writer.put(line)

    assert received(reader, len(b"".join(LINES))) == b"".join(LINES)
    assert writer.flush(10)
    assert writer.dropped == 0


def test_flush_waits_for_the_file(tmp_path: Path) -> None:
    """After `flush` the file has every line."""
    with (tmp_path / "log").open("wb") as file:
        writer = LogWriter("stdout", file.fileno())
        for line in LINES:
            writer.put(line)

        assert writer.flush(10)

    assert (tmp_path / "log").read_bytes() == b"".join(LINES)


@pytest.mark.parametrize("limits", [{"lines": 100}, {"size": 100 * 1_000}])
def test_stalled_reader(
    pipe: tuple[int, int], limits: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    """`put` returns, a bounded number of lines waits, the rest is counted, and one warning is logged.

    When the reader reads again, it gets the lines that waited, whole and in order.
    """
    reader, end = pipe
    writer = LogWriter("stdout", end, **limits)
    lines = [b"%0999d\n" % number for number in range(2_000)]
    for line in lines:
        writer.put(line)

    assert not writer.flush(0.05)
    kept = len(lines) - writer.dropped
    assert 100 <= kept <= 100 + 200  # the queue, and what the thread and the pipe hold
    assert len([r for r in caplog.records if "dropping lines for stdout" in r.getMessage()]) == 1

    data = received(reader, kept * 1_000)
    assert writer.flush(10)
    numbers = [int(line) for line in data.splitlines()]
    assert numbers == sorted(set(numbers))
    writer.put(b"again\n")
    assert received(reader, 6) == b"again\n"


@pytest.mark.parametrize("kind", ["full disk", "closed pipe", "closed before the start"])
def test_nobody_can_be_written_to(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Lines that cannot be written are counted, with one warning."""
    reader, end = os.pipe()
    os.close(reader)
    with Path("/dev/full").open("wb", buffering=0) as full:
        writer = LogWriter("stdout", {"full disk": full.fileno(), "closed pipe": end}.get(kind))
        for line in LINES:
            writer.put(line)
        assert writer.flush(10)
    os.close(end)

    assert writer.dropped == len(LINES)
    assert len([r for r in caplog.records if "dropping lines for stdout" in r.getMessage()]) == 1


def test_line_cut_by_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line after a cut one begins on a line of its own."""
    disk, room = bytearray(), 25

    def write(_: int, data: memoryview) -> int:
        if len(disk) >= room:
            raise OSError(28, "No space left on device")
        taken = data[: room - len(disk)]
        disk.extend(taken)
        return len(taken)

    monkeypatch.setattr("gateway.telemetry.log_writer.os.write", write)
    writer = LogWriter("stdout", 1)
    for line in (b"first line\n", b"second line\n", b"third line\n"):
        writer.put(line)
    assert writer.flush(10)
    lost = writer.dropped
    room = 1_000
    writer.put(b"fourth line\n")
    assert writer.flush(10)

    assert bytes(disk) == b"first line\nsecond line\nth\nfourth line\n"
    assert lost == writer.dropped == 1


@pytest.mark.parametrize(("written", "lost"), [(-1, 3), (0, 3), (3, 3), (4, 2), (8, 1), (11, 1), (12, 0)])
def test_incomplete_lines(written: int, lost: int) -> None:
    """A line counts as lost unless all of it was written."""
    assert incomplete([b"abc\n"] * 3, written) == lost


def test_threads_log_without_loss(tmp_path: Path) -> None:
    """Lines put by several threads through a logger are all written, each whole."""
    with (tmp_path / "log").open("wb") as file:
        writer = LogWriter("stderr", file.fileno())
        threads = [
            threading.Thread(target=lambda: [writer.put(line) for line in LINES[:500]]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        end = time.monotonic() + 10
        while (tmp_path / "log").stat().st_size < 4 * len(b"".join(LINES[:500])) and time.monotonic() < end:
            time.sleep(0.01)

    assert sorted((tmp_path / "log").read_bytes().splitlines(keepends=True)) == sorted(LINES[:500] * 4)


_PRINTS = """
import logging, sys, threading, warnings
from gateway.telemetry.log_writer import StandardStreams
streams = StandardStreams.of_process()
streams.take_logging()
class Broken:
    def __del__(self): raise KeyError("unraisable")
logging.getLogger("some").warning("logged \\udc80")
logging.getLogger("some").warning("%d", "wrong format")
warnings.warn("warned")
Broken()
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
streams.flush(5)
"""


def test_all_that_python_reports_goes_through_the_writer() -> None:
    """Warnings, and errors that nobody catches, are logged and so cannot block a request either."""
    result = subprocess.run(
        [sys.executable, "-c", _PRINTS], capture_output=True, text=True, timeout=60, check=True
    )

    for name, text in (
        ("some", "logged \\udc80"),
        ("some", "TypeError"),
        ("py.warnings", "warned"),
        ("thinkmeter.log", "unraisable"),
        ("thinkmeter.log", "ZeroDivisionError"),
    ):
        assert f"WARNING {name}: " in result.stderr or f"ERROR {name}: " in result.stderr, result.stderr
        assert text in result.stderr


def test_closed_stream_is_not_another_file(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If standard output was closed before the start, its number may belong to a socket."""
    monkeypatch.setattr(sys, "__stdout__", None)
    streams = StandardStreams.of_process()
    with caplog.at_level(logging.CRITICAL):
        streams.output.put(b"secret\n")

    assert streams.dropped() == {"stdout": 1, "stderr": 0}


def test_numbers_of_closed_streams() -> None:
    """A process that starts others gives them nothing under the numbers of its closed streams."""
    code = (
        "import os, sys; from gateway.telemetry.log_writer import fill_closed_streams\n"
        "reports = os.dup(1)\n"
        "for number in range(3): os.close(number)\n"
        "fill_closed_streams()\n"
        "print(min(os.pipe()), [os.get_inheritable(n) for n in range(3)], file=os.fdopen(reports, 'w'))"
    )
    said = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True).stdout
    lowest, _, inherited = said.partition(" ")

    assert int(lowest) > 2
    assert inherited == "[False, False, False]\n"
