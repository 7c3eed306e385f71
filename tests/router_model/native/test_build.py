"""The kernel is compiled where a compiler works, and otherwise the reason is given."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from router_model import prior
from router_model.encoders import ngrams
from router_model.native import build, library
from tests.router_model.native.kernels import needed_kernel

BROKEN = (sys.executable, "-c", "raise SystemExit('no headers')")
MISSING = ("/no/such/compiler",)
COPIES = (sys.executable, "-c", "import sys; open(sys.argv[-2], 'w').write('made')")
"""Compilers: one that fails, one that is not there, and one that writes the file behind `-o`."""


def test_first_compiler_that_works(tmp_path: Path) -> None:
    """Those before it are passed over, and libraries of other sources are removed."""
    (tmp_path / "kernel-0123456789ab.so").touch()
    (tmp_path / "other.so").touch()

    built = build.build(tmp_path, [MISSING, BROKEN, COPIES])

    assert built == build.library_path(tmp_path)
    assert built.read_text() == "made"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([built.name, "other.so"])


def test_built_once(tmp_path: Path) -> None:
    """A library that is there is not compiled again."""
    build.library_path(tmp_path).write_text("made before")

    assert build.build(tmp_path, [COPIES]) == build.library_path(tmp_path)
    assert build.library_path(tmp_path).read_text() == "made before"


def test_no_compiler_works(tmp_path: Path) -> None:
    """Every compiler's trouble is named, and nothing is left behind."""
    problem = build.build(tmp_path, [MISSING, BROKEN])

    assert isinstance(problem, str)
    assert "/no/such/compiler" in problem
    assert "no headers" in problem
    assert list(tmp_path.iterdir()) == []


def test_compiler_is_tried() -> None:
    """A compiler that is missing or lacks the headers does not count as one."""
    assert not build.compiles(MISSING)
    assert not build.compiles(BROKEN)
    assert build.compiles(COPIES)


@pytest.mark.parametrize("changed", range(len(build.SOURCES)))
def test_name_follows_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: int) -> None:
    """Other sources have a library of another name, so that an outdated one is never loaded."""
    sources = list(build.SOURCES)
    sources[changed] = tmp_path / "other.c"
    sources[changed].write_bytes(build.SOURCES[changed].read_bytes() + b"\n")
    before = build.library_path(tmp_path)
    monkeypatch.setattr(build, "SOURCES", tuple(sources))

    assert build.library_path(tmp_path) != before


@pytest.mark.parametrize("content", [None, b"not a library"])
def test_library_that_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    """Without a library, or with a damaged one, there is no kernel."""
    if content is not None:
        (tmp_path / "kernel.so").write_bytes(content)
    monkeypatch.setattr(library, "library_path", lambda: tmp_path / "kernel.so")

    assert library.kernel.__wrapped__() is None


def test_sizes_are_those_of_python() -> None:
    """The arrays that the kernel reads are as long as it takes them to be."""
    assert needed_kernel().sizes == (
        ngrams.BLOCK,
        ngrams.START + ngrams.END + 8,
        len(ngrams.TOKEN),
        ngrams.MAGNITUDES,
        len(ngrams.COUNTS) - len(ngrams.TOKEN) - ngrams.MAGNITUDES // 2 - 10,
        ngrams.DENSE,
        len(prior.LN_GRID),
        library.WIDEST,
        library.LANES,
    )
    assert ctypes.sizeof(ctypes.c_void_p) == 8  # structures have no gaps
