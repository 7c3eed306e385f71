"""A public name has one meaning: no class, function or constant is defined in two modules."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("gateway", "router_model")
_SAME_MEANING = {
    "log",  # the module's logger
    "commands",  # a group of the command line's commands
    "add_routes",  # adds a group of routes to the application
    "upgrade",  # of a migration, as are the next two
    "revision",
    "down_revision",
}


def test_names_have_one_meaning() -> None:
    """A name found in two modules is the same thing in both, or one of them is renamed."""
    shared = [f"{name}: {', '.join(at)}" for name, at in _shared(ROOT).items() if name not in _SAME_MEANING]

    assert not shared, "\n".join(["names defined in several modules:", *shared])


def test_exceptions_are_needed() -> None:
    """A name that only one module still defines does not stay on the list of exceptions."""
    assert _shared(ROOT).keys() >= _SAME_MEANING


# --- the checker itself, on small trees ---------------------------------------------------------------


def tree(root: Path, one: str, two: str) -> Path:
    """One module in each package."""
    for name, text in (("gateway/one", one), ("router_model/deep/two", two)):
        path = root / f"{name}.py"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    "text",
    [
        "class Name: ...",
        "def Name(): ...",
        "async def Name(): ...",
        "Name = 1",
        "Name: int = 1",
        "other = Name = 1",
        "first, (Name, *rest) = 1, (2, 3)",
        "if True:\n    pass\nelse:\n    Name = 1",
        "try:\n    pass\nexcept ImportError:\n    Name = 1",
        "with open('file'):\n    Name = 1",
    ],
)
def test_finds_a_name_in_two_modules(tmp_path: Path, text: str) -> None:
    """Both places are named, however the second module defines the name."""
    found = _shared(tree(tmp_path, "\nclass Name: ...", text))

    line = text[: text.index("Name")].count("\n") + 1
    assert found == {"Name": ["gateway/one.py:2", f"router_model/deep/two.py:{line}"]}


@pytest.mark.parametrize(
    "text",
    [
        "from gateway.one import Name",
        "import Name",
        "_Name = 1",
        "class Other:\n    Name = 1",
        "def other():\n    Name = 1",
        "print(Name)",
        "table['Name'] = Name.attribute = 1",
        "",
    ],
)
def test_other_uses_are_no_definitions(tmp_path: Path, text: str) -> None:
    """Imports, private names, and names inside of classes and functions do not count."""
    assert _shared(tree(tmp_path, "class Name: ...\n_Name = 1", text)) == {}


def test_overloads_are_one_definition(tmp_path: Path) -> None:
    """A module may define a name several times."""
    overloads = "@overload\ndef name(): ...\n@overload\ndef name(): ...\ndef name(): ..."

    assert _shared(tree(tmp_path, overloads, "")) == {}


def test_type_variables_are_allowed(tmp_path: Path) -> None:
    """A type variable means nothing outside of its module; a constant of the same name does."""
    variable = "T = TypeVar('T', bound=int)"

    assert _shared(tree(tmp_path / "both", variable, "T = typing.TypeVar('T')")) == {}
    assert _shared(tree(tmp_path / "three", variable, "T = 3")) == {}
    assert list(_shared(tree(tmp_path / "two", "T = 2", "T = 3"))) == ["T"]


def _shared(root: Path) -> dict[str, list[str]]:
    """Public names that several modules define, each with the places of its first definitions."""
    places: dict[str, list[str]] = {}
    for path in sorted(path for package in PACKAGES for path in (root / package).rglob("*.py")):
        first: dict[str, int] = {}
        for name, line in _defined(ast.parse(path.read_text()).body):
            first.setdefault(name, line)
        for name, line in first.items():
            if not name.startswith("_"):
                places.setdefault(name, []).append(f"{path.relative_to(root).as_posix()}:{line}")
    return {name: at for name, at in sorted(places.items()) if len(at) > 1}


def _defined(statements: Iterable[ast.stmt]) -> Iterator[tuple[str, int]]:
    """The names that a module's statements define, and their lines; type variables are left out."""
    for statement in statements:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement.name, statement.lineno
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            if not _makes_type_variable(statement.value):
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                for name in (name for target in targets for name in ast.walk(target)):
                    if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                        yield name.id, name.lineno
        else:
            blocks = (getattr(statement, block, []) for block in ("body", "orelse", "finalbody", "handlers"))
            yield from _defined(inner for block in blocks for inner in block)


def _makes_type_variable(value: ast.expr | None) -> bool:
    if not isinstance(value, ast.Call):
        return False
    made = getattr(value.func, "attr", getattr(value.func, "id", ""))
    return made in {"ParamSpec", "TypeVar", "TypeVarTuple"}
