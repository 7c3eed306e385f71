"""Draws the graph of imports between packages from the source: `python -m tests.architecture`.

A node is a package or a module directly inside `gateway` or `router_model`. All imports count, including
those inside functions and under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
ROOTS = ("gateway", "router_model")


class Import(NamedTuple):
    """An import of one node by another."""

    importer: str
    imported: str
    file: str
    """The importing file, relative to the root."""
    line: int

    def __str__(self) -> str:
        return f"{self.importer} -> {self.imported} ({self.file}:{self.line})"


@dataclass(frozen=True)
class Graph:
    """Nodes, and every import between two of them."""

    nodes: frozenset[str]
    imports: tuple[Import, ...]

    @property
    def edges(self) -> set[tuple[str, str]]:
        """Pairs of nodes; the first of each pair imports the second."""
        return {(edge.importer, edge.imported) for edge in self.imports}

    def reachable(self, node: str) -> set[str]:
        """Nodes that the node imports, directly or through others."""
        reached: set[str] = set()
        waiting, edges = [node], self.edges
        while waiting:
            current = waiting.pop()
            new = {imported for importer, imported in edges if importer == current} - reached
            reached |= new
            waiting += new
        return reached

    def groups(self) -> list[set[str]]:
        """The nodes in groups: two nodes share a group if each reaches the other."""
        reach = {node: self.reachable(node) for node in self.nodes}
        groups: list[set[str]] = []
        for node in sorted(self.nodes):
            if not any(node in group for group in groups):
                groups.append({node} | {other for other in reach[node] if node in reach[other]})
        return groups

    def cycles(self) -> list[list[Import]]:
        """The imports that close cycles, grouped by the nodes that reach each other."""
        tied = [group for group in self.groups() if len(group) > 1]
        return [[i for i in self.imports if i.importer in group and i.imported in group] for group in tied]

    def floors(self) -> list[set[str]]:
        """The nodes by the length of the longest import chain below them; nodes of a cycle share a floor."""
        group_of = {node: frozenset(group) for group in self.groups() for node in group}
        below: dict[frozenset[str], set[frozenset[str]]] = {group: set() for group in group_of.values()}
        for importer, imported in self.edges:
            below[group_of[importer]] |= {group_of[imported]} - {group_of[importer]}
        floors: list[set[str]] = []
        placed: set[frozenset[str]] = set()
        while len(placed) < len(below):
            ready = [group for group, under in below.items() if group not in placed and under <= placed]
            floors.append(set().union(*ready))
            placed.update(ready)
        return floors


def draw(root: Path = ROOT) -> Graph:
    """The graph of the packages in a folder."""
    imports, nodes = set(), set()
    for path in _files(root):
        module = _module(path, root)
        node = _node(module)
        nodes.add(node)
        for target, line in _targets(path, module, root):
            if target != node:
                imports.add(Import(node, target, path.relative_to(root).as_posix(), line))
    return Graph(frozenset(nodes), tuple(sorted(imports)))


def dynamic_imports(root: Path = ROOT) -> list[str]:
    """Places that import by a computed name, which the graph cannot show."""
    places = set()
    for path in _files(root):
        for node in ast.walk(ast.parse(path.read_text())):
            words = {getattr(node, field, None) for field in ("id", "attr", "name", "value")}
            if words & {"import_module", "__import__"}:
                places.add(f"{path.relative_to(root).as_posix()}:{getattr(node, 'lineno', 0)}")
    return sorted(places)


def describe(root: Path = ROOT) -> str:
    """Packages, edges, cycles and floors, as text."""
    graph = draw(root)
    floors, cycles = graph.floors(), graph.cycles()
    counts = {"nodes": graph.nodes, "edges": graph.edges, "cycles": cycles, "floors": floors}
    lines = [", ".join(f"{name}: {len(items)}" for name, items in counts.items())]
    lines += [f"floor {number}: {', '.join(sorted(floor))}" for number, floor in enumerate(floors)]
    for cycle in cycles:
        lines += ["cycle:", *(f"  {edge}" for edge in cycle)]
    lines += ["edges:", *(f"  {importer} -> {imported}" for importer, imported in sorted(graph.edges))]
    return "\n".join(lines)


def _files(root: Path) -> list[Path]:
    return sorted(path for name in ROOTS for path in (root / name).rglob("*.py"))


def _module(path: Path, root: Path) -> str:
    """The dotted name under which the file is imported."""
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _node(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _targets(path: Path, module: str, root: Path) -> Iterator[tuple[str, int]]:
    """The nodes that a file imports, each with its line."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join([*above, *source.split(".")]).rstrip(".")
            names = [f"{source}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] in ROOTS:
                yield _existing(name, root), getattr(node, "lineno", 0)


def _existing(name: str, root: Path) -> str:
    """The node of an imported name. A name that is not a module belongs to the package's `__init__`."""
    node = _node(name)
    path = root.joinpath(*node.split("."))
    return node if path.is_dir() or path.with_suffix(".py").is_file() else node.split(".")[0]


if __name__ == "__main__":
    print(describe())
