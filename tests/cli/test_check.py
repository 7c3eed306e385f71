"""`thinkmeter check`, and what every command reports about a bad configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.config.evidence import EvidenceSettings
from gateway.config.loader import parse_file, read_file
from gateway.routing.decision import Rungs
from gateway.snapshot import Snapshot
from tests.cli.command import run, write
from tests.evidence.made import decision as made_decision
from tests.evidence.made import shadow as made_shadow
from tests.evidence.made import store_rows
from tests.serving import configuration


def test_check_valid(valid: str) -> None:
    """A valid file gives status 0, and a table of models, tiers and rungs."""
    result = run("check", valid)

    assert result.exit_code == 0
    assert "valid" in result.stdout
    assert "direct 0+32, short 16+32, medium 64+32, long 256+32" in result.stdout
    assert "0 6 8 11 16 23 32 45 64 91 128 181 256" in result.stdout
    assert "0 API keys, 0 rules, price 0.05" in result.stdout
    assert result.stderr == ""


def test_check_lists_promises_that_a_ceiling_breaks(tmp_path: Path) -> None:
    """A rule or a model's floor above a key's ceiling is noted, unless the rule says `over_keys`."""
    keys = [{"name": f"intern-{i}", "key": f"k{i}", "ceiling": "short"} for i in range(5)]
    rules: list[dict[str, Any]] = [
        {"name": "law", "tier": "long", "when": {"prompt": "law"}},
        {"name": "urgent", "floor": "long", "over_keys": True},
        {"name": "web-only", "tier": "long", "when": {"key": ["web"]}},
        {"name": "tools", "floor": "short"},
    ]
    settings = configuration("http://a", model={"floor": "medium"}, rules=rules)
    settings["keys"] = [*keys, {"name": "web", "key": "k"}]

    result = run("check", write(tmp_path, settings))

    notes = [line for line in result.stdout.splitlines() if line.startswith(("note: rule", "note: model"))]
    assert result.exit_code == 0
    assert [note.split(" ")[1:3] for note in notes] == [["rule", "'law'"], ["model", "'tiny'"]]
    assert "intern-0 (short), intern-1 (short), intern-2 (short) and 2 more" in notes[0]
    assert "web" not in "".join(notes)


MISTAKES: list[tuple[str, list[str]]] = [
    ("models:\n  tiny:\n    familly: qwen3\n", ["line 3", "models.tiny.familly", "did you mean 'family'"]),
    ("models:\n  tiny: {family: qwen3}\n", ["line 2", "models.tiny.replicas", "missing"]),
    ("price: cheap\nmodels: {}\n", ["line 1", "price", "line 2", "models"]),
    ("models: {tiny: {family: qwen\n", ["line 2", "not YAML"]),
    ("price: 1\nprice: 2\n", ["line 2", "price", "named twice"]),
    ("[1, 2]", ["line 1", "mapping"]),
    ("server:\n  host: ${NO_SUCH_VARIABLE}\n", ["line 2", "server.host", "NO_SUCH_VARIABLE"]),
    (
        "models:\n  tiny:\n    family: none\n    replicas: [{url: 'http://a'}]\n",
        ["line 3", "models.tiny.family", "unknown family 'none'", "qwen3"],
    ),
    (
        "models:\n  t: {family: qwen3, replicas: [{url: 'http://a'}]}\nrules:\n- name: all\n  floor: huge\n",
        ["line 5", "rules.0.floor", "no tier 'huge'", "direct, short, medium, long"],
    ),
]


@pytest.mark.parametrize(("text", "expected"), MISTAKES)
def test_check_says_what_is_wrong_and_where(tmp_path: Path, text: str, expected: list[str]) -> None:
    """A bad file gives status 2, and on standard error the file, the line, the setting and the mistake."""
    path = write(tmp_path, text)

    result = run("check", path)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert all(line.startswith(f"{path}: ") for line in result.stderr.splitlines())
    for part in expected:
        assert part in result.stderr


def test_check_names_every_mistake(tmp_path: Path) -> None:
    """All mistakes are reported together, in the order of the file."""
    text = "price: -1\nretries: many\nserver:\n  prot: 1\nmodels: {}\n"

    result = run("check", write(tmp_path, text))

    lines = [line.split(": ")[1] for line in result.stderr.splitlines()]
    assert lines == ["line 1", "line 2", "line 4", "line 5"]


@pytest.mark.parametrize("command", [["check"], ["probe"], ["serve"], ["route"]])
def test_missing_file(tmp_path: Path, command: list[str]) -> None:
    """A file that cannot be read gives status 2 and no traceback."""
    arguments = [*command, str(tmp_path / "none.yaml"), *(["hello"] if command == ["route"] else [])]

    result = run(*arguments)

    assert result.exit_code == 2
    assert "cannot read" in result.stderr
    assert "Traceback" not in result.output


def test_path_from_the_environment(valid: str) -> None:
    """THINKMETER_CONFIG replaces the argument. Without either, the usage is shown."""
    assert run("check", THINKMETER_CONFIG=valid).exit_code == 0
    missing = run("check")
    assert missing.exit_code == 2
    assert "Missing argument" in missing.output


def test_what_shadow_pairs_may_cost(tmp_path: Path) -> None:
    """The most tokens of a day, whatever the window of their budget is."""
    model = "models: {m: {family: qwen3, replicas: [{url: 'http://127.0.0.1:1'}]}}"
    shadow = "shadow: {share: 0.02, against: 2048, budget: {tokens: 1000, window: 1h}}"

    result = run("check", write(tmp_path, f"{model}\nevidence: {{}}\n{shadow}\n"))

    assert result.exit_code == 0
    assert "0.02 of requests again at 2,048 thinking tokens, at most 24,000 tokens a day" in result.stdout


PROMISE = """models: {m: {family: qwen3, replicas: [{url: 'http://127.0.0.1:1'}]}}
shadow: {share: 0.02, against: long, budget: {tokens: 1000}}
quality: {}
"""


def test_promise_without_a_store(tmp_path: Path) -> None:
    """It is said how many pairs are missing, and no store is made."""
    file = tmp_path / "store.db"

    result = run("check", write(tmp_path, f"{PROMISE}evidence: {{file: {file}}}\n"))

    assert result.exit_code == 0
    assert "quality: m: not certified, so that long acts: about" in result.stdout
    assert "more graded pairs are needed (0 graded pairs)" in result.stdout
    assert not file.exists()


def test_promise_with_a_store(tmp_path: Path) -> None:
    """The pairs of the head and the model in the store count."""
    file = tmp_path / "store.db"
    path = write(tmp_path, f"{PROMISE}evidence: {{file: {file}}}\n")
    snapshot = Snapshot.build(*parse_file(read_file(Path(path))))
    ladder = snapshot.router.targets["m"].ladder
    estimates = snapshot.router.predictor.predict("", "m", ladder.lengths)
    top = len(ladder.thinking) - 1
    rungs = Rungs(ladder.thinking, estimates.correct, estimates.tokens, ladder.named, 0, top)
    of = {"model": "m", "head": snapshot.router.versions["head"]}
    encoded = msgspec.json.encode(rungs)
    store_rows(
        EvidenceSettings.model_validate({"file": str(file)}),
        [
            made_decision(1, **of, reason="holdout", rung=top, rungs=encoded),
            made_shadow(1, **of, served_rung=top, shadow_rung=0),
            made_decision(2, model="m", head="another", reason="holdout", rung=top, rungs=encoded),
            made_shadow(2, model="m", head="another", served_rung=top, shadow_rung=0),
        ],
    )

    result = run("check", path)

    assert "(1 graded pairs" in result.stdout


def test_promise_with_a_store_that_cannot_be_read(tmp_path: Path) -> None:
    """It is no reason to call the configuration wrong."""
    file = tmp_path / "store.db"
    file.write_text("no database, but long enough to be none" * 100)

    result = run("check", write(tmp_path, f"{PROMISE}evidence: {{file: {file}}}\n"))

    assert result.exit_code == 0
    assert "quality: the store of evidence cannot be read: DatabaseError" in result.stdout
