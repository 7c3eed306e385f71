"""Reloads the configuration without a restart, on SIGHUP and when the file changes.

A file that is written in place (`cp` to NFS, `scp`, an editor) can be seen half written, and the first half
of a YAML file is often valid. So a changed file is loaded only after it has stood still, and what was seen
is what is loaded. A file that seems cut off must stand still for longer, as its writer may have stalled. A
file that ends in YAML's end marker `...` must keep it: without it, it is incomplete.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gateway.config.loader import ConfigError, Problem, digest_of, read_file

log = logging.getLogger("thinkmeter.config")

Loaded = TypeVar("Loaded")
Stamp = tuple[int, ...]

_DOUBT = (
    "the configuration seems cut off: it is loaded when it has not changed for %g s, or at once on SIGHUP "
    "or with the end marker `...`"
)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the file is looked at, and how long it must stand still. In seconds."""

    look: float = 0.5
    still: float = 2.0
    still_when_cut: float = 30.0
    """If the file seems cut off."""
    still_when_asked: float = 0.1
    """After SIGHUP, whose sender says that the file is complete."""


@dataclass(frozen=True, slots=True)
class Look:
    """The file at one moment."""

    stamp: Stamp | None
    """None if there is no file."""
    raw: bytes | None = None
    """None if it cannot be read, or was not, as its stamp is known."""
    problem: str = ""
    """Why it cannot be read."""


@dataclass(frozen=True, slots=True)
class Still:
    """A file that has not changed for some time."""

    look: Look
    since: float

    def after(self, look: Look, now: float) -> Still:
        """What to hold after one more look."""
        return self if look == self.look else Still(look, now)

    def lacks(self, seconds: float, now: float) -> bool:
        """Whether it has not stood still for so long."""
        return now - self.since < seconds


async def watch(
    path: Path,
    load: Callable[[bytes], Loaded],
    take: Callable[[Loaded], str],
    refused: Callable[[], None],
    *,
    in_use: str,
    pace: Pace = Pace(),
) -> None:
    """Load each changed configuration and pass it to `take`; if either refuses it, call `refused`.

    in_use: digest of the file that the gateway started with. If the file was still being written then, or
    has changed since, it is loaded as soon as it stands still.

    `load` parses YAML and opens a head, so it runs in a thread to keep the event loop free for streams.
    `take` returns what the configuration changes, for the log.
    """
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, asked.set)
    try:
        first = await asyncio.to_thread(look_at, path)
        changed = first.raw is not None and digest_of(first.raw) != in_use
        known = () if changed else first.stamp
        marked, urgent = not changed and has_end_marker(first.raw), False
        whole = None if changed else first.raw
        held: Still | None = None
        doubted: Look | None = None
        while True:
            if await _waited(asked, pace.still_when_asked if urgent else pace.look):
                urgent = True
            look = await asyncio.to_thread(look_at, path, None if urgent else known)
            if not urgent and look.stamp == known:
                held = None
                continue
            held = held.after(look, loop.time()) if held else Still(look, loop.time())
            if held.lacks(pace.still_when_asked if urgent else pace.still, loop.time()):
                continue
            unsure = (
                not urgent and seems_cut(look.raw, whole) and held.lacks(pace.still_when_cut, loop.time())
            )
            if unsure and look == doubted:
                continue
            try:
                snapshot = await asyncio.to_thread(load, _complete(look, marked=marked))
                if unsure:
                    doubted = look
                    log.warning(_DOUBT, pace.still_when_cut)
                    continue
                log.info("configuration reloaded: %s", take(snapshot))
                marked, whole = has_end_marker(look.raw), look.raw
            except ConfigError as error:
                refused()
                log.warning("configuration refused, the old one stays: %s", error)
            known, held, urgent, doubted = look.stamp, None, False, None
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


async def _waited(asked: asyncio.Event, seconds: float) -> bool:
    """Wait for the signal, at most this long. Returns whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await asked.wait()
    except TimeoutError:
        return False
    asked.clear()
    return True


def look_at(path: Path, known: Stamp | None = None) -> Look:
    """Look at the file; read it unless its stamp is the known one."""
    try:
        status = path.stat()
    except OSError as error:
        return Look(None, problem=f"cannot read {path}: {error.strerror}")
    stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev)
    if stamp == known:
        return Look(stamp)
    if not stat.S_ISREG(status.st_mode):  # reading a pipe blocks until something writes to it
        return Look(stamp, problem=f"cannot read {path}: not a regular file")
    try:
        return Look(stamp, read_file(path))
    except ConfigError as error:
        return Look(stamp, problem=str(error))


def has_end_marker(raw: bytes | None) -> bool:
    """Whether the text ends in YAML's end marker, a line `...`."""
    return raw is not None and raw.rstrip().splitlines()[-1:] == [b"..."]


def seems_cut(raw: bytes | None, whole: bytes | None) -> bool:
    """Whether a file may be the beginning of a new version of another one: a line that was within it is last.

    Or the line end at the end is missing. Every limit, ceiling or budget after it would be lost.
    """
    if not raw or not whole or has_end_marker(raw):
        return False
    if whole.endswith(b"\n") and not raw.endswith(b"\n"):
        return True
    lines, last = whole.rstrip().splitlines(), raw.rstrip().splitlines()[-1:]
    return last != lines[-1:] and last[0] in lines if last else False


def _complete(look: Look, *, marked: bool) -> bytes:
    """The text that was seen.

    Raises: ConfigError, if there is none, or if it has lost its end marker.
    """
    if look.raw is None:
        raise ConfigError([Problem(None, "", look.problem)])
    if marked and not has_end_marker(look.raw):
        message = "the end marker `...` is missing, which the file in use has; is it incomplete?"
        raise ConfigError([Problem(None, "", message)])
    return look.raw
