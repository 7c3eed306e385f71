"""Packages depend on each other in one direction, and the graph that shows this misses no import."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture import Import, describe, draw, dynamic_imports


def test_packages_import_each_other_one_way() -> None:
    """No package imports itself through other packages."""
    cycles = ["\n".join(map(str, cycle)) for cycle in draw().cycles()]

    assert not cycles, "\n\n".join(["packages that import each other:", *cycles])


def test_models_know_nothing_of_the_gateway() -> None:
    """The router model can be trained and used without the gateway."""
    wrong = [
        i for i in draw().imports if (_root(i.importer), _root(i.imported)) == ("router_model", "gateway")
    ]

    assert not wrong, "\n".join(map(str, wrong))


def test_imports_are_written_out() -> None:
    """No import is hidden from the graph behind a computed name."""
    assert dynamic_imports() == []


def test_both_packages_are_drawn() -> None:
    """The graph holds both packages and the imports between them."""
    graph = draw()

    assert {"gateway.api", "gateway.config", "router_model.head"} <= graph.nodes
    roots = {(_root(importer), _root(imported)) for importer, imported in graph.edges}
    assert {("gateway", "router_model")} <= roots


# --- the graph itself, on small trees -----------------------------------------------------------------


def tree(root: Path, **files: str) -> Path:
    """Write files of the package `gateway`. Two underscores in a name separate folder and file."""
    for name, text in ({"": "", "one__": "", "two__": "", "three__": ""} | files).items():
        folder, _, module = name.rpartition("__")
        path = root / "gateway" / folder / f"{module or '__init__'}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_finds_a_cycle_and_names_its_imports(tmp_path: Path) -> None:
    """Two packages that import each other are a cycle; a third that one of them imports is not part of it."""
    root = tree(
        tmp_path,
        one__a="import os\nfrom gateway.two.b import thing",
        two__b="from gateway.three import c",
        two__d="\nimport gateway.one.a",
        three__c="",
    )

    (cycle,) = draw(root).cycles()

    assert [str(edge) for edge in cycle] == [
        "gateway.one -> gateway.two (gateway/one/a.py:2)",
        "gateway.two -> gateway.one (gateway/two/d.py:2)",
    ]


def test_finds_a_cycle_through_others(tmp_path: Path) -> None:
    """A cycle of three packages is found although no two of them import each other."""
    root = tree(
        tmp_path,
        one__a="import gateway.two.a",
        two__a="import gateway.three.a",
        three__a="import gateway.one.a",
    )

    assert [len(cycle) for cycle in draw(root).cycles()] == [3]


@pytest.mark.parametrize(
    "text",
    [
        "import gateway.two",
        "import gateway.two.b as other",
        "import os, gateway.two.b",
        "from gateway import two",
        "from gateway.two import *",
        "from gateway.two.b import thing",
        "from ..two import b",
        "from .. import two",
        "from ..two.b import thing as other",
        "def run():\n    from gateway.two import b",
        "async def run():\n    import gateway.two.b",
        "class One:\n    from gateway.two import b",
        "if TYPE_CHECKING:\n    from gateway.two import b",
        "try:\n    import gateway.two\nexcept ImportError:\n    pass",
    ],
)
def test_sees_every_kind_of_import(tmp_path: Path, text: str) -> None:
    """Absolute and relative imports are seen anywhere in a file."""
    root = tree(tmp_path, one__a=text)
    lines = text.splitlines()
    line = next(number for number, words in enumerate(lines, 1) if "two" in words)

    assert draw(root).imports == (Import("gateway.one", "gateway.two", "gateway/one/a.py", line),)


def test_relative_imports_of_a_package_start_in_it(tmp_path: Path) -> None:
    """In an `__init__.py`, one dot means the package itself, two dots the package above."""
    root = tree(tmp_path, one__="from . import a\nfrom .. import two", one__a="from . import b", one__b="")

    assert draw(root).edges == {("gateway.one", "gateway.two")}


def test_names_of_the_root_are_no_module(tmp_path: Path) -> None:
    """A name that `gateway/__init__.py` defines belongs to `gateway`; other libraries are ignored."""
    root = tree(tmp_path, one__a="from gateway import __version__\nfrom json import loads\nimport gatewayish")

    assert draw(root).edges == {("gateway.one", "gateway")}


def test_floors_follow_the_longest_chain(tmp_path: Path) -> None:
    """A package stands above everything that it imports, and a cycle shares one floor."""
    root = tree(tmp_path, one__a="import gateway.two, gateway.three", two__a="import gateway.three")
    assert draw(root).floors() == [{"gateway", "gateway.three"}, {"gateway.two"}, {"gateway.one"}]

    tree(root, three__a="import gateway.two")

    assert draw(root).floors() == [{"gateway", "gateway.two", "gateway.three"}, {"gateway.one"}]
    assert describe(root).startswith("nodes: 4, edges: 4, cycles: 1, floors: 2\n")


@pytest.mark.parametrize(
    "text",
    [
        "\nimport importlib\nimportlib.import_module('gateway.two')",
        "\n\nfrom importlib import import_module as load",
        "\n\n__import__('gateway.two')",
        "\n\ngetattr(importlib, 'import_module')",
    ],
)
def test_sees_computed_imports(tmp_path: Path, text: str) -> None:
    """Each way to import by a computed name is found, with its line."""
    assert dynamic_imports(tree(tmp_path, one__a=text)) == ["gateway/one/a.py:3"]


def _root(node: str) -> str:
    return node.partition(".")[0]
