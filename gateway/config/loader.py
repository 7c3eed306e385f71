"""Reads the configuration file: YAML with `${ENV}` references. Every mistake is reported with its line."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from gateway.config.examples import example_keys
from gateway.config.messages import message_of, place_of
from gateway.config.server import is_loopback
from gateway.config.settings import SettingPath, Settings
from gateway.config.shapes import asks_number, asks_text, inside, suggestion
from gateway.config.tls import tls_mistakes

KEYS_VARIABLE = "THINKMETER_API_KEYS"
"""Environment variable with further API keys: `name=secret,name=secret`."""

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::([-?])([^}]*))?\}")

_TAG = "tag:yaml.org,2002:"
_MERGE, _VALUE, _NULL, _BOOL, _TEXT = (_TAG + kind for kind in ("merge", "value", "null", "bool", "str"))


@dataclass(frozen=True)
class Problem:
    """One mistake in the configuration."""

    line: int | None
    """Line in the file, from 1; None if the mistake is not in the file."""
    place: str
    """The setting, such as "models.qwen3-8b.floor"; empty if the whole file is wrong."""
    message: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.place}: {self.message}" if self.place else f"{where}{self.message}"


class ConfigError(Exception):
    """The configuration is invalid; `problems` says why, in the order of the file."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


def load(path: Path, environ: Mapping[str, str] = os.environ) -> tuple[Settings, str]:
    """Read and check a configuration file. Returns the settings and the digest that names them in decisions.

    Raises: ConfigError.
    """
    return parse_file(read_file(path), environ)


def read_file(path: Path) -> bytes:
    """The bytes of a configuration file.

    Raises: ConfigError.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError([Problem(None, "", f"cannot read {path}: {error.strerror}")]) from None


def parse_file(raw: bytes, environ: Mapping[str, str] = os.environ) -> tuple[Settings, str]:
    """Check the bytes of a configuration file. Returns what `load` returns.

    Raises: ConfigError.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ConfigError([Problem(None, "", "the file is not UTF-8 text")]) from None
    return parse(text, environ), digest_of(raw)


def digest_of(raw: bytes) -> str:
    """Names a configuration file in decisions and logs: the first 12 hex digits of its SHA-256."""
    return hashlib.sha256(raw).hexdigest()[:12]


def parse(text: str, environ: Mapping[str, str]) -> Settings:
    """Read and check settings in YAML; `environ` has the values of `${NAME}` references.

    Raises: ConfigError.
    """
    reader = _Reader(environ)
    data = reader.read(text)
    data = _with_families(data)
    data = _with_keys(data, environ)
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        problems = [_problem(entry, reader.lines) for entry in error.errors(include_url=False)]
        raise ConfigError(sorted(problems, key=lambda problem: problem.line or 0)) from None
    if mistakes := tls_mistakes(settings):
        raise ConfigError([_located(at, text, reader.lines) for at, text in mistakes])
    return settings


def reachable_example_keys(
    settings: Settings, read: Callable[[], bytes], host: str, environ: Mapping[str, str] = os.environ
) -> list[Problem]:
    """The keys that everybody knows from the examples, if others can reach the host that is listened on.

    read: returns the file of the settings. It is read again only to name the lines.
    """
    places = [] if is_loopback(host) else list(example_keys(settings))
    if not places:
        return []
    reader = _Reader(environ)
    reader.read(read().decode())
    where = host or "all addresses"
    message = f"everybody knows this key from the examples: set another, or listen on 127.0.0.1, not {where}"
    return [_located(place, message, reader.lines) for place in places]


@cache
def builtin_families() -> dict[str, Any]:
    """The built-in table of model families. Read once, because reading YAML takes 20 ms."""
    table: dict[str, Any] = yaml.safe_load(files("gateway.config").joinpath("families.yaml").read_text())
    return table


def _with_families(data: dict[str, Any]) -> dict[str, Any]:
    own = data.get("families")
    if own is not None and not isinstance(own, dict):
        return data  # the validation of the settings reports it
    return {**data, "families": builtin_families() | (own or {})}


def _with_keys(data: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    pairs = [pair.strip() for pair in environ.get(KEYS_VARIABLE, "").split(",") if pair.strip()]
    keys = data.get("keys") or []
    if not pairs or not isinstance(keys, list):
        return data if data.get("keys", ...) is not None else {**data, "keys": []}
    added = []
    for pair in pairs:
        name, found, secret = pair.partition("=")
        if not found:
            raise ConfigError([Problem(None, KEYS_VARIABLE, "expected name=secret,name=secret")])
        added.append({"name": name, "key": secret})
    return {**data, "keys": [*keys, *added]}


class _Reader:
    """Turns YAML into plain data, and remembers the line of every setting."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.lines: dict[SettingPath, int] = {}
        """The line of every setting, from 1."""
        self._problems: list[Problem] = []
        self._given: dict[int, bool] = {}

    def read(self, text: str) -> dict[str, Any]:
        try:
            data = self._construct(text)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else None
            quote = line and "${" in "".join(text.splitlines()[line - 1 : line])
            hint = '; a reference inside of braces? write it in quotes: "${NAME}"' if quote else ""
            raise ConfigError([Problem(line, "", f"not YAML: {error.problem}{hint}")]) from None
        except yaml.YAMLError as error:
            raise ConfigError([Problem(None, "", f"not YAML: {error}")]) from None
        except RecursionError:
            raise ConfigError([Problem(None, "", "nested too deeply")]) from None
        if not isinstance(data, dict):
            raise ConfigError([Problem(1, "", "the file must be a mapping of settings")])
        return data

    def _construct(self, text: str) -> Any:
        loader = self._loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return {}
            self._walk(root, (), (), Settings)
            if self._problems:
                raise ConfigError(self._problems)
            return loader.construct_document(root)
        finally:
            loader.dispose()

    def _walk(self, node: yaml.Node, at: SettingPath, above: tuple[int, ...], asked: Any) -> None:
        """Read a node in place. asked: the type that the settings ask for here; None if they know no such."""
        self.lines.setdefault(at, node.start_mark.line + 1)
        if id(node) in above:
            self._complain(node, at, "an alias to a value that contains it")
            raise ConfigError(self._problems)
        above = (*above, id(node))
        if isinstance(node, yaml.ScalarNode):
            given = self._resolve_references(node, at)
            if (asks_text(asked) and (node.tag != _NULL or given)) or (
                node.tag == _BOOL and asks_number(asked)
            ):
                _take_as_text(self._loader, node)
            self._check_scalar(node, at)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._walk(item, (*at, index), above, inside(asked, index))
        elif isinstance(node, yaml.MappingNode):
            self._walk_mapping(node, at, above, asked)

    def _walk_mapping(
        self, node: yaml.MappingNode, at: SettingPath, above: tuple[int, ...], asked: Any
    ) -> None:
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._complain(key, at, "the name of a setting must be plain text")
                continue
            name, merged = str(key.value), key.tag == _MERGE
            if not merged:
                _take_as_text(self._loader, key)
                self._check_scalar(key, at)
            if name in seen:
                self._complain(key, (*at, name), "named twice")
            seen.add(name)
            self.lines[*at, name] = key.start_mark.line + 1
            self._walk(value, (*at, name), above, asked if merged else inside(asked, name))

    def _resolve_references(self, node: yaml.ScalarNode, at: SettingPath) -> bool:
        """Replace the references in a scalar. Returns whether a variable gave a text that is not empty."""
        if id(node) in self._given:  # an alias: what a variable gave is not searched for references
            return self._given[id(node)]
        given: list[str] = []

        def value(match: re.Match[str]) -> str:
            name, operator, operand = match.groups()
            found = self._environ.get(name, operand if operator == "-" else None)
            if found is None or (operator == "?" and not found):
                why = f": {operand}" if operator == "?" and operand else ""
                self._complain(node, at, f"environment variable {name} is not set{why}")
                return ""
            if name in self._environ:
                given.append(found)
            return str(found)

        resolved = _REFERENCE.sub(value, node.value)
        if resolved != node.value:
            node.value = resolved
            if node.style is None:  # not quoted: `port: ${PORT}` becomes a number
                tag = _implied(self._loader, resolved)
                node.tag = _TEXT if tag in (_MERGE, _VALUE) else tag
        self._given[id(node)] = any(given)
        return any(given)

    def _check_scalar(self, node: yaml.ScalarNode, at: SettingPath) -> None:
        """Report values that PyYAML takes for numbers or dates but cannot convert, such as 2026-99-99."""
        try:
            self._loader.construct_object(node)
        except (ValueError, LookupError, AttributeError):
            self._complain(node, at, f"not a valid {node.tag.rpartition(':')[2]}")

    def _complain(self, node: yaml.Node, at: SettingPath, message: str) -> None:
        self._problems.append(Problem(node.start_mark.line + 1, dotted(at), message))


def _take_as_text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> None:
    """Keep the text of a scalar that YAML takes for a number, a date or a boolean by its looks alone."""
    if node.style is None and node.tag == _implied(loader, node.value):
        node.tag = _TEXT


def _implied(loader: yaml.SafeLoader, text: str) -> str:
    """The tag that YAML gives to a plain scalar."""
    return str(loader.resolve(yaml.ScalarNode, text, (True, False)))  # type: ignore[no-untyped-call]


def dotted(place: SettingPath) -> str:
    """The path of a setting as messages name it: "keys.0.name"."""
    return ".".join(map(str, place))


def _problem(entry: Any, lines: dict[SettingPath, int]) -> Problem:
    place = place_of(entry)
    message = message_of(entry)
    if entry["type"] == "extra_forbidden":
        message = "unknown setting" + suggestion(place)
    return _located(place, message, lines)


def _located(place: SettingPath, message: str, lines: dict[SettingPath, int]) -> Problem:
    known = place
    # A missing setting has no line, so report the line of the section around it.
    while known and known not in lines:
        known = known[:-1]
    return Problem(lines.get(known), dotted(place), message)
