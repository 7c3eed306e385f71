"""The documentation names everything there is, and nothing that there is not."""

from __future__ import annotations

import re
import typing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Info
from pydantic import BaseModel
from typer.main import get_command

from gateway.access_log import access_line
from gateway.breaker import Breaker
from gateway.cli import cli
from gateway.config import Replica, Settings
from gateway.configfile import KEYS_VARIABLE, builtin_families, parse
from gateway.errors import BackendError, all_errors
from gateway.metrics import Metrics
from gateway.policy import Decision, Reason
from gateway.record import Record
from gateway.replicas import Backend, Pool
from gateway.snapshot import Snapshot

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@cache
def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no heading {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, without headings and rulers."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in table if "`" in row[0]]


def named(cell: str) -> str:
    """The first word in backticks."""
    found = re.search(r"`([^`]+)`", cell)
    assert found, cell
    return found[1]


def assert_same(documented: Any, existing: Any, where: str) -> None:
    missing, unknown = set(existing) - set(documented), set(documented) - set(existing)
    assert not missing, f"not documented in {where}: {sorted(missing)}"
    assert not unknown, f"documented in {where}, but unknown to the code: {sorted(unknown)}"


# --- settings ---------------------------------------------------------------------------------------


def sections(model: type[BaseModel], path: str = "") -> dict[str, type[BaseModel]]:
    """Every section by its path: `[]` for an item of a list, `.*` for an entry of a mapping."""
    found = {path: model}
    for name, field in model.model_fields.items():
        inner, suffix = field.annotation, ""
        if typing.get_origin(inner) in (list, dict):
            suffix = "[]" if typing.get_origin(inner) is list else ".*"
            inner = typing.get_args(inner)[-1]
        elif type(None) in typing.get_args(inner):
            inner = typing.get_args(inner)[0]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= sections(inner, f"{path}.{name}{suffix}".removeprefix("."))
    return found


def documented_sections() -> dict[str, str]:
    """The text under every heading that is a path in backticks; names of entries are in capitals."""
    headings = re.findall(r"^### `([^`]+)`$", page("configuration.md"), re.MULTILINE)
    texts = {re.sub(r"\b[A-Z]+\b", "*", h): section(page("configuration.md"), f"`{h}`") for h in headings}
    return {"": section(page("configuration.md"), "The whole file")} | texts


def test_every_section_is_documented() -> None:
    """Each section of the configuration has one heading, and each heading is a section."""
    paths: dict[type[BaseModel], list[str]] = {}
    for path, model in sections(Settings).items():
        paths.setdefault(model, []).append(path)
    known = {path for alternatives in paths.values() for path in alternatives}

    for model, alternatives in paths.items():
        found = [path for path in alternatives if path in documented_sections()]
        assert len(found) == 1, (
            f"{model.__name__} ({' or '.join(alternatives)}) is documented {len(found)} times"
        )
    assert not set(documented_sections()) - known


@pytest.mark.parametrize("path", sorted(documented_sections()))
def test_every_setting_is_documented(path: str) -> None:
    """Each setting of a section is in its table with its default, and nothing else is."""
    model = sections(Settings)[path]
    table = {named(row[0]): row[1] for row in rows(documented_sections()[path])}
    written_otherwise = {"key"} if path == "keys[]" else set()

    assert_same(
        set(table) - written_otherwise, model.model_fields, f"configuration.md, {path or 'top level'}"
    )
    for name, default in table.items():
        if name not in written_otherwise:
            assert_default(model, name, default)


def assert_default(model: type[BaseModel], name: str, written: str) -> None:
    """The default in the table is the one in the code, as far as it is a value and not a description."""
    field = model.model_fields[name]
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    assert written.startswith("required") == field.is_required(), name
    if written == "–":
        assert default is None, name
    elif written == "empty":
        assert default in ([], {}), name
    elif re.fullmatch(r"`[^`]+`", written):
        assert yaml.safe_load(written.strip("`")) == default, name


def test_environment_is_documented() -> None:
    """The variables the gateway reads are named."""
    for variable in (KEYS_VARIABLE, "THINKMETER_CONFIG"):
        assert f"`{variable}`" in page("configuration.md"), variable


def test_every_family_is_documented() -> None:
    """The list of built-in families is complete."""
    listed = section(page("configuration.md"), "`families.NAME`").partition("Run\n")[0]
    assert_same(re.findall(r"`([^`$ ]+)`", listed.partition("|")[0]), builtin_families(), "configuration.md")


# --- metrics and logs -------------------------------------------------------------------------------


def existing_metrics() -> dict[str, tuple[str, set[str]]]:
    """Type and labels of every metric, by its name in the exposition."""
    replica = Backend("a", Replica.model_validate({"url": "http://a"}), Breaker())
    metrics = Metrics(lambda: [(Pool("tiny", "tiny", [replica]), replica)])
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", metrics.exposition().decode(), re.MULTILINE))
    labels: dict[str, set[str]] = {}
    for collector in metrics.registry._collector_to_names:
        own = set(getattr(collector, "_labelnames", ()))
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            if isinstance(collector, Info):
                name, own = f"{family.name}_info", set(family.samples[0].labels)
            elif not hasattr(collector, "_labelnames"):
                own = set(family.samples[0].labels)
            labels[name] = own
    assert set(types) == set(labels)
    return {name: (types[name], labels[name]) for name in types}


def test_every_metric_is_documented() -> None:
    """Each metric is listed with its type and labels."""
    table = {
        named(row[0]): (row[1], set(re.findall(r"`([^`]+)`", row[2]))) for row in rows(page("metrics.md"))
    }
    existing = existing_metrics()

    assert_same(table, existing, "metrics.md")
    for name, (kind, labels) in existing.items():
        assert table[name] == (kind, labels), f"metrics.md says of {name}: {table[name]}"


def test_metrics_in_prose_exist() -> None:
    """A metric named anywhere in the documentation exists."""
    known = set(existing_metrics())
    for path in PAGES:
        named_here = set(re.findall(r"\bthinkmeter_[a-z_]+", path.read_text()))
        mentioned = {re.sub(r"_(bucket|count|sum)$", "", name) for name in named_here}
        assert not mentioned - known, f"{path.name}: {mentioned - known}"


def test_every_log_field_is_documented() -> None:
    """The fields of the access log are all listed, and no others."""
    decision = Decision(
        *("id", "tiny", "direct", "price", None, "adaptive", ("direct",), 0, 32, 0.5),
        *({"direct": 0.5}, {"direct": 8.0}, 0.02, 1.0, {"gateway": "0"}),
    )
    record = Record("id", "/v1/chat/completions", decision=decision, backend="a", error=BackendError("x"))
    text = section(page("metrics.md"), "The access log")

    assert_same(re.findall(r"`([^`]+)`", text), yaml.safe_load(access_line(record)), "metrics.md")


# --- errors and the API -----------------------------------------------------------------------------


def test_every_error_is_documented() -> None:
    """Each code is listed with its status and type."""
    table = {named(row[0]): (int(row[1]), row[2]) for row in rows(page("errors.md"))}
    existing = {error.code: (error.status, error.type) for error in all_errors()}

    assert_same(table, existing, "errors.md")
    assert table == existing


def test_every_reason_is_documented() -> None:
    """The closed set of reasons is listed."""
    table = [named(row[0]) for row in rows(section(page("api.md"), "Reasons"))]

    assert_same(table, typing.get_args(Reason), "api.md")


def test_every_header_is_documented() -> None:
    """Each x-thinkmeter header that the source sends is listed."""
    source = "".join(path.read_text() for path in (ROOT / "gateway").glob("*.py"))
    sent = {"x-request-id", *re.findall(r"\bx-thinkmeter-[a-z-]+", source)}
    table = [named(row[0]) for row in rows(section(page("api.md"), "Response headers"))]

    assert_same(table, sent, "api.md")


def test_every_decision_field_is_documented() -> None:
    """The fields of a decision are listed."""
    text = section(page("api.md"), "The decision").partition("The decision is the record")[2]
    listed = set(re.findall(r"`([a-z]+)`", text))

    assert_same(listed, Decision.__struct_fields__, "api.md")


def test_every_route_is_documented() -> None:
    """The routes are those the gateway describes itself, and the description."""
    from gateway.app import Gateway

    settings = parse("models: {tiny: {family: qwen3, replicas: [{url: 'http://a'}]}}", {})
    described = Gateway(Snapshot.build(settings, "test"))._rest.openapi()["paths"]
    table = rows(page("api.md").partition("## ")[0])
    listed = {path for row in table for path in re.findall(r"(/[^\s`]+)", row[0])}

    assert_same(
        listed, {*described, "/docs", "/openapi.json"} - {"/v1/models/{name}"} | {"/v1/models/NAME"}, "api.md"
    )
    for row in table:
        methods = re.findall(r"\b(GET|POST|PUT|DELETE)\b", row[0])
        for path in re.findall(r"(/[^\s`]+)", row[0]):
            if path in described:
                assert {method.lower() for method in methods} == set(described[path]), path


# --- examples, commands, links ----------------------------------------------------------------------


def environ_for(text: str) -> dict[str, str]:
    secrets = {name: f"secret-of-{name}" for name in re.findall(r"\$\{(\w+)\}", text)}
    return secrets | ({"REDIS_URL": "redis://redis"} if "REDIS_URL" in secrets else {})


def examples() -> list[Any]:
    fence = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
    found = [(path, text) for path in PAGES for text in fence.findall(path.read_text())]
    files = sorted(path for path in ROOT.glob("deploy/**/*.yaml") if "templates" not in path.parts)  # Helm's
    found += [(path, path.read_text()) for path in files]
    return [pytest.param(text, id=f"{path.name}-{number}") for number, (path, text) in enumerate(found)]


@pytest.mark.parametrize("text", examples())
def test_example_is_valid(text: str) -> None:
    """Each YAML example can be read; each one that configures models is a valid configuration."""
    documents = list(yaml.safe_load_all(text))

    assert all(documents)
    if len(documents) == 1 and isinstance(documents[0], dict) and "models" in documents[0]:
        assert parse(text, environ_for(text)).models


def test_there_is_an_example_configuration() -> None:
    """The example is found, and it shows rules and keys."""
    text = (ROOT / "deploy" / "gateway.example.yaml").read_text()
    settings = parse(text, environ_for(text))

    assert settings.rules
    assert settings.keys


def test_commands_exist() -> None:
    """Each `thinkmeter COMMAND` in the documentation exists, and each command that needs words has some."""
    text = "\n".join(path.read_text() for path in PAGES)
    written = set(re.findall(r"(?:^|`|\$ )thinkmeter ([a-z-]+)", text, re.MULTILINE))
    commands: Any = get_command(cli)

    assert_same(written | {"version"}, commands.commands, "README.md and docs/")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Each relative link is a file of this repository."""
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text())
    targets = [link for link in links if "://" not in link and not link.startswith("mailto:")]

    assert [target for target in targets if not (path.parent / target).exists()] == []
