"""Runs a command of the user's with limits of time, memory, file size and processes, and without a network.

The namespaces that keep it from the network and from leaving processes behind are Linux's, and need
`unshare` and the kernel's permission. Where they are missing, the other limits hold. Files are not hidden.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

_STDERR = "thinkmeter-stderr"
_STDERR_BYTES = 2_000
# The shell stays as the parent, so that a signal that ends the command becomes a status.
_LIMITED = """ulimit -t "$1" 2>/dev/null; ulimit -v "$2" 2>/dev/null; ulimit -f "$3" 2>/dev/null; ulimit -c 0
if [ "$4" -gt 0 ]; then ulimit -u "$4" 2>/dev/null || ulimit -p "$4" 2>/dev/null; fi
shift 4; "$@"; exit $?"""
_NAMESPACES = ["--map-root-user", "--net", "--pid", "--fork", "--kill-child"]


class Limits(Struct, frozen=True):
    """What a command may use."""

    seconds: int = 10
    """Of time, and of CPU time of one process."""
    memory: int = 2 << 30
    """Bytes of address space of one process."""
    file: int = 64 << 20
    """Bytes of one file that it writes."""
    processes: int = 64
    """Only where namespaces are permitted; elsewhere all processes of the user would count."""


class Ran(Struct, frozen=True):
    """What became of a command."""

    status: int | None
    """Exit status, over 128 after a signal. None: it was ended at the time limit."""
    stderr: str
    """Its end."""


@lru_cache(maxsize=1)
def namespaces() -> list[str]:
    """The command that keeps another one from the network; empty where that is not permitted."""
    unshare = shutil.which("unshare")
    if not unshare:
        return []
    command = [unshare, *_NAMESPACES]
    tried = subprocess.run(  # noqa: S603 - constant arguments
        [*command, "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    return command if tried.returncode == 0 else []


def run_limited(
    command: Sequence[str], files: Mapping[str, str], stdin: str, environ: Mapping[str, str], limits: Limits
) -> Ran:
    """Run a command in a new folder with `files`, of which `stdin` is its input.

    environ: what it gets besides PATH, HOME, TMPDIR and LANG. In its values, `{folder}` is the folder.

    Raises: OSError.
    """
    with tempfile.TemporaryDirectory(prefix="thinkmeter-grade-", ignore_cleanup_errors=True) as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text, encoding="utf-8", errors="surrogatepass")
        own = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": folder,
            "TMPDIR": folder,
            "LANG": "C.UTF-8",
        }
        given = {name: value.replace("{folder}", folder) for name, value in environ.items()}
        with Path(folder, stdin).open("rb") as answer, Path(folder, _STDERR).open("wb") as errors:
            process = subprocess.Popen(  # noqa: S603 - the user's own command
                _limited(command, limits),
                cwd=folder,
                env=own | given,
                stdin=answer,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        status = _waited(process, limits.seconds)
        with Path(folder, _STDERR).open("rb") as errors:
            errors.seek(max(0, Path(errors.name).stat().st_size - _STDERR_BYTES))
            text = errors.read().decode("utf-8", "replace").strip()
        return Ran(status, text)


def _limited(command: Sequence[str], limits: Limits) -> list[str]:
    isolation = namespaces()
    numbers = [
        limits.seconds + 1,
        limits.memory // 1024,
        limits.file // 512,
        limits.processes if isolation else 0,
    ]
    return [*isolation, "/bin/sh", "-c", _LIMITED, "sh", *map(str, numbers), *command]


def _waited(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Wait for a command, and end all processes of its group."""
    try:
        status = process.wait(seconds)
        return status if status >= 0 else 128 - status
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
