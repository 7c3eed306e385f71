"""Keys of the examples, which everybody knows, are recognised."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gateway.config.access import key_digest
from gateway.config.examples import example_keys
from gateway.config.loader import ConfigError, parse, reachable_example_keys
from gateway.config.server import is_loopback
from tests.docs.pages import ROOT
from tests.making import settings

EXAMPLE = (ROOT / "deploy" / "gateway.example.yaml").read_bytes()


@pytest.mark.parametrize(
    ("sections", "places"),
    [
        ({"keys": [{"name": "a", "key": "k"}, {"name": "b", "key": "change-me"}]}, [("keys", 1)]),
        ({"keys": [{"name": "sales", "key": "change-me-sales"}]}, [("keys", 0)]),
        ({"keys": [{"name": "a", "hash": key_digest("change-me-web")}]}, [("keys", 0)]),
        ({"admin": {"key": "change-me-admin"}}, [("admin",)]),
        ({"metrics": {"key": "change-me"}}, [("metrics",)]),
        ({"admin": {"key": "changeme"}, "console": {"key": "change-me-console"}}, [("admin",), ("console",)]),
        ({"keys": [{"name": "a", "key": "k"}], "admin": {"key": "change-my-mind"}}, []),
        ({}, []),
    ],
)
def test_known_keys(sections: dict[str, Any], places: list[Any]) -> None:
    """Each place with a key of the examples is found, whether it is given as secret or as hash."""
    assert list(example_keys(settings(**sections))) == places


def test_every_secret_of_the_examples_is_known() -> None:
    """No `change-me…` in the repository's examples and pages is missing from the list."""
    paths = [
        ROOT / ".env.example",
        *ROOT.glob("deploy/**/*.yaml"),
        *ROOT.glob("docs/*.md"),
        ROOT / "README.md",
    ]
    found = {word for path in paths for word in re.findall(r"change-me[a-z-]*", path.read_text())}
    servers = {"change-me-redis", "change-me-grafana"}  # not keys of the gateway

    for secret in found - servers:
        assert list(example_keys(settings(admin={"key": secret}))), secret


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("[::1]", True), ("localhost", True)]
    + [(host, False) for host in ("0.0.0.0", "::", "", "10.0.0.1", "gateway", "localhost.example.org")],
)
def test_loopback(host: str, loopback: bool) -> None:
    """Only this machine's own addresses count."""
    assert is_loopback(host) is loopback


def test_example_configuration_needs_its_secrets() -> None:
    """The example listens on all addresses, so it is refused until its keys are set, with their lines."""
    made = parse(EXAMPLE.decode(), {})
    lines = EXAMPLE.decode().splitlines()

    problems = reachable_example_keys(made, lambda: EXAMPLE, made.server.host, {})

    assert [problem.place for problem in problems] == ["keys.0", "keys.1", "admin"]
    assert [lines[(problem.line or 0) - 1].split(":")[0].strip() for problem in problems] == [
        *("- name", "- name", "admin")
    ]
    assert reachable_example_keys(made, lambda: EXAMPLE, "127.0.0.1", {}) == []
    own = {"WEB_KEY": "one", "INTERNS_KEY": "two", "ADMIN_KEY": "three"}
    assert reachable_example_keys(parse(EXAMPLE.decode(), own), lambda: EXAMPLE, made.server.host, own) == []


def test_key_from_the_environment_is_recognised() -> None:
    """A known key in THINKMETER_API_KEYS is refused as well, although it has no line."""
    environ = {"THINKMETER_API_KEYS": "web=change-me-web"}
    text = "models: {m: {family: qwen3, replicas: [{url: 'http://a'}]}}"

    (problem,) = reachable_example_keys(parse(text, environ), text.encode, "0.0.0.0", environ)

    assert "everybody knows this key" in str(problem)


@pytest.mark.parametrize("environ", [{}, {"ADMIN_KEY": ""}])
def test_required_variable(environ: dict[str, str]) -> None:
    """`${NAME:?message}` refuses the file, with its line and the message."""
    text = "price: 1\nadmin: {key: '${ADMIN_KEY:?make one with openssl}'}\n"

    with pytest.raises(ConfigError, match=r"line 2.*ADMIN_KEY is not set: make one with openssl"):
        parse(text, environ)
