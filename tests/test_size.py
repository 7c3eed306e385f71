"""Files, functions and the gateway's folder stay small enough to be read at one sitting."""

from __future__ import annotations

import ast
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[1]
GATEWAY = ROOT / "gateway"
FOLDERS = ("gateway", "router_model", "tests", "examples", "deploy")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
FILE_LINES, FUNCTION_LINES = 300, 60
_MEDIAN_LINES = 130
_ENTRIES = 21


def test_there_are_files() -> None:
    """The search for files finds the code, so that the tests below check something."""
    assert {"relay.py", "dispatch.py", "head.py"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_size(path: Path) -> None:
    """No file has more than 300 lines and no function more than 60, with its decorators."""
    text = path.read_text()
    functions = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]

    long = {f.name: length for f in functions if (length := _length(f)) > FUNCTION_LINES}

    assert len(text.splitlines()) <= FILE_LINES
    assert long == {}


def test_gateway_shows_few_entries() -> None:
    """A listing of the folder fits on one screen."""
    assert len(_entries(GATEWAY)) <= _ENTRIES


def test_typical_file_is_short() -> None:
    """At least half of the gateway's files are short, so that long ones stay exceptions."""
    assert (
        median(len(path.read_text().splitlines()) for path in FILES if GATEWAY in path.parents)
        <= _MEDIAN_LINES
    )


def test_entries_leave_out_caches(tmp_path: Path) -> None:
    """Compiled files do not count, nor do folders that contain nothing else."""
    for name in ("module.py", "__pycache__/module.pyc", "package/module.py", "gone/__pycache__/module.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert _entries(tmp_path) == ["module.py", "package"]


def _entries(folder: Path) -> list[str]:
    """The names in a folder, without caches."""
    files = (path.relative_to(folder).parts for path in folder.rglob("*") if path.is_file())
    return sorted({parts[0] for parts in files if "__pycache__" not in parts})


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    assert function.end_lineno
    return function.end_lineno - first + 1
