"""Files and functions stay small enough to be read in one go."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("gateway", "router_model") for path in (ROOT / folder).rglob("*.py"))
FILE_LINES, FUNCTION_LINES = 400, 60


def test_there_are_files() -> None:
    """The walk finds the code, so that the tests below look at something."""
    assert {"pipeline.py", "upstream.py", "head.py"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_size(path: Path) -> None:
    """No file is longer than 400 lines, no function than 60, nested ones and decorators included."""
    text = path.read_text()
    functions = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]

    long = {f.name: length for f in functions if (length := _length(f)) > FUNCTION_LINES}

    assert len(text.splitlines()) <= FILE_LINES
    assert long == {}


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    assert function.end_lineno
    return function.end_lineno - first + 1
