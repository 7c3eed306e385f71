"""Texts in the configuration that look like something else, and what is said of values of a wrong kind."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from gateway.config.access import key_digest
from gateway.config.loader import ConfigError, parse
from gateway.config.settings import Settings
from gateway.config.shapes import asks_number, asks_text, inside

GOOD = """\
models:
  tiny:
    family: qwen3
    replicas:
      - url: "http://a"
        api_key: SECRET
"""
PLAIN = GOOD.replace("        api_key: SECRET\n", "")
LOOKS = [
    *("12345678", "0123", "0x10", "1e5", "1.5", "1_000", "12:30:00", "2025-11-26", "2026-99-99"),
    *("yes", "no", "on", "off", "true", "False", "null", "~", ".nan", ".inf", "=", "<<", "-1", "+1"),
]
HARD = [
    *("a: b", "a #b", "'", '"', "@a", "*a", "&a", "%a", "!a", "- a", "{a: b}", "[a]", "|", ">", "?", "`a"),
    *("${OTHER}", "\\n", "ünï", "a,b", "#", ":", "two words", "]]", "}}", "'; x: \""),
]


URL = "models.tiny.replicas.0.url"


@pytest.mark.parametrize("secret", LOOKS + HARD)
def test_a_secret_from_the_environment_is_a_text(secret: str) -> None:
    """Whatever a variable has, it is the text of the setting, quoted or not, and never YAML."""
    text = GOOD.replace("SECRET", "${S}") + "keys:\n  - name: a\n    key: ${S}\n  - {name: b, key: 'x${S}'}\n"
    made = parse(text + "console:\n  key: ${S}\nmetrics: {key: '${S}'}\n", {"S": secret})

    assert made.models["tiny"].replicas[0].api_key.get_secret_value() == secret  # type: ignore[union-attr]
    assert [key.hash for key in made.keys] == [key_digest(secret), key_digest(f"x{secret}")]
    assert made.console.hash == made.metrics.hash == key_digest(secret)


@pytest.mark.parametrize("secret", [look for look in LOOKS if look not in ("null", "~", "<<", "=")])
def test_a_secret_in_the_file_is_a_text(secret: str) -> None:
    """A secret without quotes keeps every character, whatever YAML would make of it."""
    made = parse(GOOD.replace("SECRET", secret) + f"keys:\n  - name: a\n    key: {secret}\n", {})

    assert made.models["tiny"].replicas[0].api_key.get_secret_value() == secret  # type: ignore[union-attr]
    assert made.keys[0].hash == key_digest(secret)


@pytest.mark.parametrize("secret", ["abc\n", "abc\r\n", "  abc ", "\tabc"])
def test_a_secret_loses_what_no_header_carries(secret: str) -> None:
    """A secret of a file or a variable often ends with a line end, which is no part of it."""
    text = GOOD.replace("SECRET", "${S}") + "keys:\n  - {name: a, key: '${S}'}\n"
    made = parse(text, {"S": secret})

    assert made.models["tiny"].replicas[0].api_key.get_secret_value() == "abc"  # type: ignore[union-attr]
    assert made.keys[0].hash == key_digest("abc")


@pytest.mark.parametrize("place", ["models.tiny.replicas.0.api_key", "keys.0", "console"])
def test_a_secret_that_no_header_carries(place: str) -> None:
    """A line end inside of a secret would end the header, and begin another."""
    given = GOOD.replace("SECRET", "x") + "keys: [{name: a, key: y}]\nconsole: {key: z}\n"
    letter = {"models.tiny.replicas.0.api_key": "x", "keys.0": "y", "console": "z"}[place]
    with pytest.raises(ConfigError) as caught:
        parse(given.replace(f"key: {letter}", 'key: "${S}"'), {"S": "a\nkeys: []"})

    assert [problem.place for problem in caught.value.problems] == [place]
    assert "control character" in str(caught.value)
    assert "keys: []" not in str(caught.value)


def replica(**changes: Any) -> dict[str, Any]:
    made = {"family": "qwen3", "replicas": [{"url": "http://a"} | changes]}
    return {"models": {"tiny": made}}


def test_names_that_look_like_something_else() -> None:
    """Names of models, tiers, keys, teams and in rules are texts, also as names of settings."""
    made = parse(
        """
        models:
          2025:
            family: qwen3
            served_name: 7
            replicas: [{url: "http://a", name: 1}]
            tiers: {no: {thinking: 0}}
          on: {family: qwen3, replicas: [{url: "http://b"}], tiers: {no: {thinking: 0}}}
        keys: [{name: 1, key: 2, team: no, models: [2025, on]}]
        rules: [{name: 1.5, tier: no, when: {model: [2025], key: [1], metadata: {yes: 5}, header: {x: 1}}}]
        budgets: [{name: 0x1, scope: team, match: [no], window: 1m, tokens: 5}]
        """,
        {},
    )

    assert list(made.models) == ["2025", "on"]
    assert made.models["2025"].served_name == "7"
    assert list(made.models["on"].tiers) == ["no"]
    assert (made.keys[0].name, made.keys[0].team, made.keys[0].models) == ("1", "no", ["2025", "on"])
    assert (made.rules[0].name, made.rules[0].when.metadata) == ("1.5", {"yes": "5"})
    assert (made.budgets[0].name, made.budgets[0].match) == ("0x1", ["no"])


def test_numbers_and_other_values_stay_what_they_are() -> None:
    """Where a number, a boolean or nothing is asked for, and in overlays, YAML decides."""
    made = parse(
        PLAIN
        + """\
    tiers:
      long:
        thinking: 5
        answer: null
        overlay:
          temperature: 0.5
          skip: yes
          seed: "${N}"
          top_k: ${N}
          5: x
affinity_header: ~
head: ${HEAD:-baseline}
server:
  port: ${N}
  tracing: ${T}
budgets:
  - name: b
    window: ${N}
    tokens: 0x10
redis:
  url: ${GONE:-}
keys: ${GONE:-}
""",
        {"N": "80", "T": "on"},
    )

    overlay = made.models["tiny"].tiers["long"].overlay
    assert overlay == {"temperature": 0.5, "skip": True, "seed": "80", "top_k": 80, "5": "x"}
    assert (made.affinity_header, made.redis.url, made.keys) == (None, None, [])
    assert (made.server.port, made.server.tracing) == (80, True)
    assert (made.budgets[0].window, made.budgets[0].tokens) == (80, 16)


def test_reference_without_quotes_in_braces() -> None:
    """YAML has braces of its own, so a reference inside of some needs quotes, and the message says so."""
    with pytest.raises(ConfigError, match=r"line 6: not YAML: .*write it in quotes"):
        parse(PLAIN + "keys: [{name: a, key: ${S}}]\n", {"S": "x"})


def test_alias_of_a_reference() -> None:
    """A value is searched for references once, also where an alias repeats it."""
    text = PLAIN + "keys:\n  - {name: a, key: &k '${S}'}\nconsole: {key: *k}\n"

    assert parse(text, {"S": "${T}", "T": "t"}).console.hash == key_digest("${T}")


def test_merged_sections() -> None:
    """The types of a merged section are those of the section that it is merged into."""
    text = PLAIN + "keys:\n  - &base {name: 1, key: 2, team: on}\n  - {<<: *base, name: 3, key: 4}\n"

    assert [(key.name, key.team) for key in parse(text, {}).keys] == [("1", "on"), ("3", "on")]


@pytest.mark.parametrize(
    ("place", "text", "number"),
    [
        (("models",), False, False),
        (("models", "x", "family"), True, False),
        (("models", "x", "replicas", 0, "api_key"), True, False),
        (("models", "x", "replicas", 0, "url"), True, False),
        (("models", "x", "rungs"), False, True),
        (("models", "x", "thinking_budget"), False, False),
        (("models", "x", "tiers", "long", "thinking"), False, True),
        (("models", "x", "tiers", "long", "effort"), True, False),
        (("models", "x", "tiers", "long", "overlay", "a"), False, False),
        (("keys", 0, "key"), True, False),
        (("keys", 0, "secret"), False, False),
        (("rules", 0, "when", "header", "x"), True, False),
        (("budgets", 0, "window"), False, True),
        (("client_scheduling",), True, False),
        (("nothing", "at", "all"), False, False),
    ],
)
def test_what_a_place_asks_for(place: tuple[str | int, ...], text: bool, number: bool) -> None:
    """The schema says whether a setting is a text or a number."""
    asked: Any = Settings
    for part in place:
        asked = inside(asked, part)

    assert (asks_text(asked), asks_number(asked)) == (text, number)


@pytest.mark.parametrize(
    ("added", "place", "message"),
    [
        ({"price": True}, "price", "must be a number"),
        ({"retries": False}, "retries", "must be a whole number"),
        ({"retries": "1e6"}, "retries", "must be a whole number"),
        ({"encoder": "x"}, "encoder", "must be a mapping of settings"),
        ({"keys": {"a": "b"}}, "keys", "must be a list"),
        ({"keys": [{"name": "a"}]}, "keys.0.hash", "missing: give `key`, or `hash`"),
        (
            {"keys": [{"name": "a", "key": "x"}, {"name": "a", "key": "y"}]},
            "keys.1.name",
            "share the same name",
        ),
        ({"keys": [{"name": "a", "key": "x"}, {"name": "b", "key": "x"}]}, "keys.1", "share the same secret"),
        (
            {"keys": [{"name": "a", "key": "x", "models": ["z"]}]},
            "keys.0.models",
            "unknown model z; known: tiny",
        ),
        ({"client_scheduling": "perhaps"}, "client_scheduling", "must be 'drop', 'refuse' or 'keep'"),
        (
            {"server": {"trusted_proxies": ["x"]}},
            "server.trusted_proxies.0",
            "must be an address or a network",
        ),
        ({"server": {"access_log": "perhaps"}}, "server.access_log", "must be true or false"),
        (
            {"rules": [{"name": "r", "tier": "long", "when": {"model": ["z"]}}]},
            "rules.0.when.model",
            "unknown model z",
        ),
        (
            {"rules": [{"name": "r", "floor": "long", "ceiling": "short"}]},
            "rules.0.floor",
            "the floor 'long' is above the ceiling 'short'",
        ),
        ({"timeouts": {"total": "5m"}}, "timeouts.total", "must be a number"),
        ({"models": {}}, "models", "must not be empty"),
        (replica(url="a:8000"), URL, "must be a URL that begins with http:// or https://"),
        (replica(url="a"), URL, "must be a URL that begins with http:// or https://"),
        (replica(url=None), URL, "must be a URL that begins with http:// or https://"),
        (replica(url="http://a:99999"), URL, "invalid port number"),
        (replica(url="http://a/?x=1"), URL, "must have no `?`"),
        (replica(url="http://a/#x"), URL, "must have no `?`"),
        (replica(url="http://a/v1/chat/completions"), URL, "without /chat/completions"),
        (replica(url="http://a/v1/models/"), URL, "without /models"),
        (replica(url="http://u:p@a", api_key="k"), "models.tiny.replicas.0", "give `api_key` or a user"),
        ({"models": {"a b": replica()["models"]["tiny"]}}, "models.a b", "the name must match pattern"),
    ],
)
def test_one_message_in_the_words_of_the_file(added: dict[str, Any], place: str, message: str) -> None:
    """A mistake has one message, which speaks of settings and names the place of the mistake."""
    with pytest.raises(ConfigError) as caught:
        parse(yaml.safe_dump(yaml.safe_load(PLAIN) | added), {})

    (problem,) = caught.value.problems
    assert problem.place == place
    assert message in problem.message
    assert "nput should" not in problem.message
