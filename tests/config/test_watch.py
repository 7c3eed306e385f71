"""A changed configuration is loaded when it has stood still, without blocking the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.config.loader import ConfigError, Problem, digest_of
from gateway.config.watch import Look, Pace, Still, has_end_marker, look_at, seems_cut, watch

FAST = Pace(look=0.01, still=0.05, still_when_asked=0.02)


class Watched:
    """A watched file, and what became of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.taken: list[str] = []
        self.refused = 0

    def load(self, raw: bytes) -> str:
        if b"bad" in raw:
            raise ConfigError([Problem(1, "", "bad")])
        return raw.decode()

    def take(self, text: str) -> str:
        self.taken.append(text)
        return "something"

    def refuse(self) -> None:
        self.refused += 1

    async def until(self, ready: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not ready():
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def watching(path: Path, pace: Pace = FAST, in_use: bytes | None = None) -> AsyncIterator[Watched]:
    """in_use: what the gateway has loaded at its start; default the file as it is."""
    watched, digest = Watched(path), digest_of(path.read_bytes() if in_use is None else in_use)
    task = asyncio.create_task(
        watch(path, watched.load, watched.take, watched.refuse, in_use=digest, pace=pace)
    )
    await asyncio.sleep(0.05)  # it has looked at the file once
    try:
        yield watched
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text("old")
    return path


async def test_streams_go_on_while_a_configuration_is_loaded(path: Path) -> None:
    """The event loop keeps running during `load`: here `load` returns only after the loop lets it."""
    loading, may_end, taken = threading.Event(), threading.Event(), asyncio.Event()

    def load(raw: bytes) -> str:
        loading.set()
        assert may_end.wait(30), "the event loop stood still"
        return raw.decode()

    loaded: list[str] = []

    def take(text: str) -> str:
        loaded.append(text)
        taken.set()
        return "something"

    watcher = asyncio.create_task(watch(path, load, take, lambda: None, in_use=digest_of(b"old"), pace=FAST))
    await asyncio.sleep(0.05)
    path.write_text("the new one")
    async with asyncio.timeout(60):
        while not loading.is_set():
            await asyncio.sleep(0.01)
        may_end.set()
        await taken.wait()
    watcher.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watcher
    assert loaded == ["the new one"]


def test_a_file_stands_still_while_stamp_and_bytes_agree() -> None:
    """Any difference between two looks, of the stamp or of the bytes, starts the time anew."""
    first = Still(Look((1, 5), b"a"), 10.0)

    assert first.after(Look((1, 5), b"a"), 11.0).since == 10.0
    assert first.after(Look((2, 5), b"a"), 11.0).since == 11.0
    assert first.after(Look((1, 5), b"b"), 11.0).since == 11.0
    assert first.after(Look(None), 11.0).since == 11.0


async def test_file_that_is_being_written_is_not_loaded(path: Path) -> None:
    """While a writer keeps writing, nothing is loaded; then the whole file is, once."""
    async with watching(path, Pace(look=0.005, still=0.5)) as watched:
        with path.open("w") as file:
            for line in range(20):
                file.write(f"line {line}\n")
                file.flush()
                await asyncio.sleep(0.01)
        await watched.until(lambda: bool(watched.taken))

    assert watched.taken == ["".join(f"line {line}\n" for line in range(20))]


async def test_file_that_was_half_written_at_the_start_is_loaded(path: Path) -> None:
    """If the file is not what the gateway has read at its start, it is loaded although it changes no more."""
    async with watching(path, in_use=b"ol") as watched:
        await watched.until(lambda: watched.taken == ["old"])
    async with watching(path) as watched:
        await asyncio.sleep(0.2)
    assert watched.taken == []


async def test_signal_loads_soon_but_not_a_file_in_motion(path: Path) -> None:
    """After SIGHUP the file must stand still for a moment only; an unchanged file is loaded as well."""
    async with watching(path, Pace(look=3600, still=3600, still_when_asked=0.3)) as watched:
        os.kill(os.getpid(), signal.SIGHUP)
        await watched.until(lambda: watched.taken == ["old"])
        os.kill(os.getpid(), signal.SIGHUP)
        for text in ("n", "ne", "new"):
            path.write_text(text)
            await asyncio.sleep(0.05)
        await watched.until(lambda: len(watched.taken) == 2)

    assert watched.taken == ["old", "new"]


async def test_atomic_replacement_and_symlinks(path: Path, tmp_path: Path) -> None:
    """A file renamed over the old one is loaded, and so is a swapped link as Kubernetes mounts ConfigMaps."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "gateway.yaml").write_text(name)
    (tmp_path / "..data").symlink_to("one")
    mounted = tmp_path / "mounted.yaml"
    mounted.symlink_to("..data/gateway.yaml")
    async with watching(path) as file, watching(mounted) as link:
        (tmp_path / "new").write_text("renamed")
        (tmp_path / "new").replace(path)
        (tmp_path / "..tmp").symlink_to("two")
        (tmp_path / "..tmp").replace(tmp_path / "..data")
        await file.until(lambda: file.taken == ["renamed"])
        await link.until(lambda: link.taken == ["two"])


async def test_missing_odd_and_bad_files_are_refused(path: Path) -> None:
    """A file that is gone, a pipe or invalid is refused once, and the next good one is loaded."""
    async with watching(path) as watched:
        path.unlink()
        await watched.until(lambda: watched.refused == 1)
        os.mkfifo(path)
        await watched.until(lambda: watched.refused == 2)
        path.unlink()
        path.write_text("bad")
        await watched.until(lambda: watched.refused >= 3)
        path.write_text("good")
        await watched.until(lambda: watched.taken == ["good"])


async def test_end_marker_must_stay(path: Path) -> None:
    """A file that has ended in `...` is refused without it, also after SIGHUP."""
    path.write_text("a\n...\n")
    async with watching(path) as watched:
        path.write_text("a\nb\n")
        await watched.until(lambda: watched.refused == 1)
        os.kill(os.getpid(), signal.SIGHUP)
        await watched.until(lambda: watched.refused == 2)
        path.write_text("a\nb\n...\n")
        await watched.until(lambda: watched.taken == ["a\nb\n...\n"])


async def test_file_that_seems_cut_off_waits(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A writer that stalls for long within the file loses nothing that comes later; SIGHUP does not wait."""
    path.write_text("keys\nceiling\nrules\n")
    async with watching(path, Pace(look=0.01, still=0.02, still_when_cut=3600)) as watched:
        path.write_text("keys\n")
        await watched.until(lambda: "seems cut off" in caplog.text)
        path.write_text("keys\nceiling\nrules\nmore\n")
        await watched.until(lambda: watched.taken == ["keys\nceiling\nrules\nmore\n"])
        path.write_text("keys\n")
        os.kill(os.getpid(), signal.SIGHUP)
        await watched.until(lambda: watched.taken[1:] == ["keys\n"])

    assert caplog.text.count("seems cut off") <= 2


async def test_invalid_file_that_seems_cut_off_is_refused_soon(path: Path) -> None:
    """There is nothing to wait for: the old configuration stays anyhow."""
    path.write_text("keys\n")
    async with watching(path, Pace(look=0.01, still=0.02, still_when_cut=3600)) as watched:
        path.write_text("bad")
        await watched.until(lambda: watched.refused == 1)


async def test_file_that_seems_cut_off_is_loaded_at_last(path: Path) -> None:
    """An operator may remove the last lines."""
    path.write_text("keys\nrules\n")
    async with watching(path, Pace(look=0.01, still=0.02, still_when_cut=0.1)) as watched:
        path.write_text("keys\n")
        await watched.until(lambda: watched.taken == ["keys\n"])


@pytest.mark.parametrize(
    ("raw", "cut"),
    [
        (b"a\nb\n", True),
        (b"new\na\nb\n", True),
        (b"a\nb\nc: 12", True),
        (b"a\nb\nc: 1\n", False),
        (b"a\nb\nc: 123\n", False),
        (b"a\nc: 123\n", False),
        (b"a\nb\nc: 123\nd\n", False),
        (b"a\n...\n", False),
        (b"", False),
        (b"\n\n", False),
        (None, False),
    ],
)
def test_what_seems_cut(raw: bytes | None, cut: bool) -> None:
    """Part of a line is missing at the end, or lines are that followed the last one."""
    assert seems_cut(raw, b"a\nb\nc: 123\n") is cut
    assert not seems_cut(raw, None)


@pytest.mark.parametrize(
    ("text", "marked"),
    [(b"a\n...\n", True), (b"a\n...", True), (b"a\r\n...\r\n\n", True), (b"a ...", False), (b"", False)],
)
def test_end_marker(text: bytes, marked: bool) -> None:
    """The marker is a line of its own at the end."""
    assert has_end_marker(text) is marked


def test_known_file_is_not_read_again(path: Path) -> None:
    """A look at an unchanged file costs no reading; a change of the permissions or of the link shows."""
    seen = look_at(path)
    assert seen.raw == b"old"
    assert look_at(path, seen.stamp).raw is None

    path.chmod(0o600)

    assert look_at(path, seen.stamp).stamp != seen.stamp
