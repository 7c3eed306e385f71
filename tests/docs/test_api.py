"""The documentation names every error, reason, header, decision field and route, and no other."""

from __future__ import annotations

import re
import typing

from gateway.config.loader import parse
from gateway.errors import all_errors
from gateway.routing.decision import Decision, Reason
from gateway.snapshot import Snapshot
from tests.docs.pages import ROOT, assert_same, named, page, rows, section


def test_every_error_is_documented() -> None:
    """Each code is listed with its status and type."""
    table = {named(row[0]): (int(row[1]), row[2]) for row in rows(page("errors.md"))}
    existing = {error.code: (error.status, error.type) for error in all_errors()}

    assert_same(table, existing, "errors.md")
    assert table == existing


def test_every_reason_is_documented() -> None:
    """Every reason of a decision is listed."""
    table = [named(row[0]) for row in rows(section(page("api.md"), "Reasons"))]

    assert_same(table, typing.get_args(Reason), "api.md")


def test_every_header_is_documented() -> None:
    """Each x-thinkmeter header that the source sends is listed."""
    source = "".join(path.read_text() for path in (ROOT / "gateway").rglob("*.py"))
    sent = {"x-request-id", *re.findall(r"\bx-thinkmeter-[a-z-]+", source)}
    table = [named(row[0]) for row in rows(section(page("api.md"), "Response headers"))]

    assert_same(table, sent, "api.md")


def test_every_decision_field_is_documented() -> None:
    """Every field of a decision is listed."""
    text = section(page("api.md"), "The decision").partition("The decision is the record")[2]
    listed = set(re.findall(r"`([a-z_]+)`", text))

    assert_same(listed, Decision.__struct_fields__, "api.md")


def test_every_route_is_documented() -> None:
    """The routes are those of the gateway's OpenAPI description, and the description itself."""
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
