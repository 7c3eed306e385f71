"""The documentation names every setting with its default, and no other."""

from __future__ import annotations

import re
import typing

import pytest
import yaml
from pydantic import BaseModel

from gateway.config.loader import KEYS_VARIABLE, builtin_families
from gateway.config.settings import Settings
from tests.docs.pages import assert_same, named, page, rows, section


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
    """The text under every heading that is a path in backticks, such as `models.NAME`."""
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
    """The default in the table is that of the code, unless the table describes it in words."""
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
    """The environment variables that the gateway reads are listed."""
    for variable in (KEYS_VARIABLE, "THINKMETER_CONFIG"):
        assert f"`{variable}`" in page("configuration.md"), variable


def test_every_family_is_documented() -> None:
    """The list of built-in families is complete."""
    listed = section(page("configuration.md"), "`families.NAME`").partition("Run\n")[0]
    assert_same(re.findall(r"`([^`$ ]+)`", listed.partition("|")[0]), builtin_families(), "configuration.md")
