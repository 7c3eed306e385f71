"""Reading the configuration: the line of every mistake, references, and secrets that stay secret."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.access import key_digest
from gateway.config.loader import KEYS_VARIABLE, ConfigError, Problem, load, parse
from gateway.snapshot import Snapshot

GOOD = """\
price: 0.1
models:
  tiny:
    family: qwen3
    replicas:
      - {name: a, url: "http://a"}
"""


def problems(text: str, environ: dict[str, str] | None = None) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        parse(dedent(text), environ or {})
    return caught.value.problems


def test_smallest_file() -> None:
    """A model with a family and a replica is enough; everything else has a default."""
    made = parse(GOOD, {})

    assert (made.price, made.server.port, made.keys) == (0.1, 8080, [])


MISTAKES = [
    (GOOD + "prices: 1\n", 7, "prices", "unknown setting; did you mean 'price'?"),
    (GOOD + "server:\n  prot: 80\n", 8, "server.prot", "unknown setting; did you mean 'port'?"),
    (GOOD + "server:\n  host: a\n  port: eighty\n", 9, "server.port", "must be a whole number"),
    (GOOD + "server:\n  port: 99999\n", 8, "server.port", "less than or equal to 65535"),
    (GOOD + "retries: 99\n", 7, "retries", "less than or equal to 10"),
    (GOOD + "timeouts: 5\n", 7, "timeouts", "must be a mapping of settings"),
    (GOOD + "    floor: huge\n", 7, "models.tiny.floor", "no tier 'huge', only direct, short, medium, long"),
    (GOOD + "    tiers:\n      Long: {thinking: 1}\n", 8, "models.tiny.tiers.Long", "pattern"),
    (GOOD + "    tiers:\n      long: {answer: 1}\n", 8, "models.tiny.tiers.long.thinking", "missing"),
    (GOOD.replace("url", "uri"), 6, "models.tiny.replicas.0.uri", "did you mean 'url'?"),
    (GOOD.replace("http://a", "a:80"), 6, "models.tiny.replicas.0.url", "must be a URL"),
    (GOOD.replace("qwen3", "qwen"), 4, "models.tiny.family", "unknown family 'qwen'; known: deepseek-r1"),
    (GOOD.replace("    family: qwen3\n", ""), 3, "models.tiny.family", "missing"),
    (GOOD + "price: 2\n", 7, "price", "named twice"),
    (GOOD + "rules:\n  - name: r\n", 8, "rules.0", "a rule needs one of tier, floor, ceiling"),
    (
        GOOD + "rules:\n  - name: r\n    tier: long\n    when:\n      prompt: '['\n",
        11,
        "rules.0.when.prompt",
        "not a regular expression",
    ),
    (GOOD + "rules:\n  - {name: r, tier: x}\n", 8, "rules.0.tier", "model 'tiny' has no tier 'x'"),
    (GOOD + "keys:\n  - {name: a, key: ''}\n", 8, "keys.0", "must be text that is not empty"),
    (GOOD + "health:\n  interval: ${GONE}\n", 8, "health.interval", "environment variable GONE is not set"),
    (GOOD + "families: [1]\n", 7, "families", "must be a mapping of settings"),
    (GOOD + "retries: 2026-99-99\n", 7, "retries", "not a valid timestamp"),
    (GOOD + "retries: !!int two\n", 7, "retries", "not a valid int"),
    (GOOD + "? [a, b]\n: c\n", 7, "", "the name of a setting must be plain text"),
    (GOOD + "rules: &all [*all]\n", 7, "rules.0", "an alias to a value that contains it"),
    (GOOD + "price: [1\n", 8, "", "not YAML"),
    (GOOD + "\tprice: 1\n", 7, "", "not YAML"),
    (GOOD + "server: !!python/object:os.system {}\n", 7, "", "not YAML: could not determine a constructor"),
    ("- a\n- b\n", 1, "", "must be a mapping"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "place", "message"), MISTAKES, ids=[case[3][:40] for case in MISTAKES]
)
def test_mistake_has_its_line(text: str, line: int, place: str, message: str) -> None:
    """Every mistake is reported with its line, its setting and what is wrong."""
    found = next(problem for problem in problems(text) if problem.place == place)

    assert found.line == line
    assert message in found.message
    assert str(found).startswith(f"line {line}: {place}")


@pytest.mark.parametrize("text", ["", "# nothing\n", "price: 1\n"])
def test_models_are_missing(text: str) -> None:
    """A file without models is invalid, and so is an empty one."""
    assert [(found.place, found.message) for found in problems(text)] == [("models", "missing")]


def test_all_mistakes_at_once_in_order() -> None:
    """All mistakes are reported at once, in the order of the file."""
    text = "retries: 99\nserver:\n  port: x\n  prot: 1\n" + GOOD.replace("family", "famly")

    assert [found.line for found in problems(text)] == [1, 3, 4, 7, 8]


@pytest.mark.parametrize(
    ("written", "environ", "read"),
    [
        ("${HOST}", {"HOST": "h"}, "h"),
        ('"${HOST}"', {"HOST": "h"}, "h"),
        ("a-${HOST}.${ZONE}", {"HOST": "h", "ZONE": "z"}, "a-h.z"),
        ("${HOST:-fallback}", {}, "fallback"),
        ("${HOST:-fallback}", {"HOST": "h"}, "h"),
        ('"${HOST:-}x"', {}, "x"),
        ("${HOST:?set it}", {"HOST": "h"}, "h"),
        ("$HOST", {"HOST": "h"}, "$HOST"),
        ("${HOST}", {"HOST": "${OTHER}"}, "${OTHER}"),
        ('"${HOST}"', {"HOST": "a: {b: 'c"}, "a: {b: 'c"),
    ],
)
def test_references(written: str, environ: dict[str, str], read: str) -> None:
    """`${NAME}` and `${NAME:-default}` are replaced once, and the value is never read as YAML."""
    assert parse(GOOD + f"server:\n  host: {written}\n", environ).server.host == read


def test_reference_to_a_number() -> None:
    """A reference without quotes may be a number or a boolean."""
    made = parse(GOOD + "server:\n  port: ${P}\n  tracing: ${T}\n", {"P": "80", "T": "true"})

    assert (made.server.port, made.server.tracing) == (80, True)


def test_quoted_reference_stays_text() -> None:
    """A quoted reference stays text, even if its value has only digits."""
    assert parse(GOOD + 'keys: [{name: a, key: "${K}"}]\n', {"K": "0123"}).keys[0].hash == key_digest("0123")


def test_every_missing_variable_is_reported() -> None:
    """All variables that are not set are reported at once."""
    found = problems(GOOD + "affinity_header: ${ONE}\nserver: {host: '${TWO}-${THREE}'}\n")

    assert [(problem.line, problem.message.split()[2]) for problem in found] == [
        (7, "ONE"),
        (8, "TWO"),
        (8, "THREE"),
    ]


SECRET = "s3cret"


@pytest.mark.parametrize(
    "text",
    [
        GOOD + "keys: [{name: a, hash: '${S}'}]\n",
        GOOD + "keys: [{name: a, key: '${S}', hash: '${S}'}]\n",
        GOOD + "keys: [{name: a, key: '${S}', kex: '${S}'}]\n",
        GOOD + "keys: [{name: a, key: ['${S}']}]\n",
        GOOD + "keys: ['${S}']\n",
        GOOD + "keys: '${S}'\n",
        GOOD + "keys: [{name: '${S}!', key: k}]\n",
        GOOD + "keys: [{name: a, key: '${S}'}, {name: b, key: '${S}'}]\n",
        GOOD + "server: {port: '${S}'}\n",
        GOOD.replace("http://a", "${S}"),
        GOOD.replace("http://a", "ftp://user:${S}@a"),
        GOOD.replace("name: a", "api_key: ['${S}']"),
    ],
)
def test_secrets_never_in_messages(text: str) -> None:
    """No message repeats a wrong value, because it may be a secret."""
    assert SECRET not in "".join(map(str, problems(text, {"S": SECRET})))


def test_keys_from_the_environment() -> None:
    """THINKMETER_API_KEYS adds keys to those of the file. A secret may contain `=`."""
    made = parse(GOOD + "keys: [{name: a, key: k}]\n", {KEYS_VARIABLE: " b=x=y, c=z ,"})

    assert [key.name for key in made.keys] == ["a", "b", "c"]
    assert made.keys[1] == parse(GOOD + "keys: [{name: b, key: x=y}]\n", {}).keys[0]


@pytest.mark.parametrize(
    "value", ["s3cret", "a=b,s3cret", "a b=s3cret", "a=s3cret,b=s3cret", "a=s3cret,a=s3cret2"]
)
def test_wrong_keys_in_the_environment(value: str) -> None:
    """A mistake in THINKMETER_API_KEYS is reported without the secret."""
    assert SECRET not in "".join(map(str, problems(GOOD, {KEYS_VARIABLE: value})))


@pytest.mark.parametrize("text", ["keys:\n", "keys: []\n"])
def test_no_keys(text: str) -> None:
    """No keys and an empty list both mean that everybody may use the gateway."""
    assert parse(GOOD + text, {}).keys == []


def test_anchors_and_merges() -> None:
    """YAML anchors and merges work, and a mistake beside a merge is still reported with its line."""
    shared = "    tiers: &t\n      direct: &d {thinking: 0}\n      long: {<<: *d, thinking: 9}\n"
    made = parse(GOOD + shared, {})

    assert [tier.thinking for tier in made.models["tiny"].tiers.values()] == [0, 9]
    assert problems(GOOD + shared + "      wrong: {<<: *d, thinkin: 1}\n")[0].line == 10


def test_file(tmp_path: Path) -> None:
    """Files with the same content have the same digest, and others do not."""
    paths = [tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "c.yaml"]
    for path, text in zip(paths, (GOOD, GOOD, GOOD + "# more\n"), strict=True):
        path.write_text(text)
    first, second, third = (load(path, {}) for path in paths)

    assert first[0] == second[0] == third[0]
    assert first[1] == second[1] != third[1]


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder and a binary file are reported without a line."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "binary"):
        with pytest.raises(ConfigError) as caught:
            load(path, {})
        assert [problem.line for problem in caught.value.problems] == [None]


WORDS = ["a", "models", "${A}", "2026-99-99", "0x", "1e9", "~", "=", "1:60", "<<", "\0", "---\n"]
SIGNS = [": ", "- ", "? ", "\n", "  ", "[", "]", "{", "}", "|", ">", "'", '"', "#"]
MARKS = ["&x ", "*x", "!!int ", "!!bool ", "!!set "]


@given(st.text(max_size=60) | st.lists(st.sampled_from(WORDS + SIGNS + MARKS), max_size=14).map("".join))
def test_any_text_is_a_config_error(text: str) -> None:
    """Any text without models raises ConfigError, so that a reload keeps the old settings."""
    with pytest.raises(ConfigError) as caught:
        parse(text, {"A": "2026-99-99"})

    assert caught.value.problems


@pytest.mark.parametrize(
    "text", ["a: " + "[" * 1_500, "price: " + "1" * 5_000, "price: !!float x", "a: !!timestamp x"]
)
def test_text_that_breaks_the_yaml_library(text: str) -> None:
    """Text that makes the YAML library raise other exceptions is a ConfigError too."""
    assert problems(text)[0].message


@pytest.mark.parametrize("head", ["no/such/folder", "tests"])
def test_a_head_that_does_not_exist(tmp_path: Path, head: str) -> None:
    """A head that cannot be loaded is reported as a mistake in the configuration."""
    file = tmp_path / "gateway.yaml"
    file.write_text(f"head: {head}\nmodels: {{tiny: {{family: qwen3, replicas: [{{url: 'http://a'}}]}}}}\n")

    with pytest.raises(ConfigError, match=r"head: .*no head here"):
        Snapshot.load(file)
