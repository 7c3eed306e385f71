"""Compiles the C beside it into one shared library: `python -m router_model.native.build`.

Needs the standard library alone, because the build of the package runs it too. The compiler is the system's
`cc`, if it can compile, or Zig's, which comes as a wheel (`ziglang`).
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

SOURCES = tuple(Path(__file__).with_name(name) for name in ("kernel.c", "events.c", "lane.c"))
_HEADERS = (SOURCES[0].with_name("events.h"),)
SYSTEM: tuple[str, ...] = ("cc",)
ZIG: tuple[str, ...] = (sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline")  # for any CPU of its kind
_FLAGS = ("-O3", "-std=c11", "-fPIC", "-shared", "-fvisibility=hidden")
_TRIAL = "#include <math.h>\n#include <string.h>\ndouble f(char *c) { return exp(strlen(c)); }\n"
_SECONDS = 120  # Zig builds its own runtime when it is used for the first time


def library_path(folder: Path = SOURCES[0].parent) -> Path:
    """Where the library belongs. Its name holds the digest of the sources: no outdated one is ever found."""
    read = b"".join(source.read_bytes() for source in (*SOURCES, *_HEADERS))
    digest = hashlib.sha256(read).hexdigest()[:12]
    return folder / f"kernel-{digest}.so"


def compiles(compiler: Sequence[str]) -> bool:
    """Whether a compiler is there and finds the headers of C and its mathematics."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "trial.c")
        source.write_text(_TRIAL)
        return _run(compiler, [source], Path(folder, "trial.so")) is None


def build(folder: Path = SOURCES[0].parent, compilers: Iterable[Sequence[str]] = (SYSTEM, ZIG)) -> Path | str:
    """The library in a folder, compiled unless it is there; or why no compiler could."""
    library = library_path(folder)
    problems = []
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        made = Path(temporary, library.name)
        for compiler in compilers:
            problem = _run(compiler, SOURCES, made)
            if problem is None:
                for outdated in folder.glob("kernel-*.so"):
                    outdated.unlink(missing_ok=True)
                return made.replace(library)
            problems.append(f"{' '.join(compiler)}: {problem}")
    return "; ".join(problems)


def _run(compiler: Sequence[str], sources: Iterable[Path], made: Path) -> str | None:
    """None, or what went wrong."""
    command = [*compiler, *_FLAGS, *map(str, sources), "-o", str(made), "-lm"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 and made.exists() else done.stderr.strip()[-500:] or "it failed"


if __name__ == "__main__":
    found = build()
    print(found)  # noqa: T201
    sys.exit(isinstance(found, str))
