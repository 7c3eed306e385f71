"""`thinkmeter heads`: kept, shown, promoted and rolled back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import open_store
from gateway.evidence.heads.archive import judge_head
from router_model.head import ARTIFACTS
from tests.cli.command import run, write
from tests.serving import configuration

TINY = str(ARTIFACTS / "tiny")


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "evidence.db")


@pytest.fixture
def config(tmp_path: Path, file: str) -> str:
    """The configuration of a store that exists."""
    open_store(EvidenceSettings(file=file)).dispose()
    return write(tmp_path, configuration("http://127.0.0.1:1", evidence={"file": file}))


def added(config: str) -> str:
    """Keep the head `tiny`, and return its version."""
    shown = run("heads", "add", config, TINY)
    assert shown.exit_code == 0, shown.output
    return shown.stdout.split()[0]


def test_from_candidate_to_rollback(config: str) -> None:
    assert "no heads" in run("heads", "list", config).stdout
    version = added(config)

    assert json.loads(run("heads", "show", config, "tiny").stdout)["state"] == "candidate"
    promoted = run("heads", "promote", config, version[:9], "--why", "it is better", "--anyway")
    assert promoted.stdout == f"the head of the configuration → {version}\n"
    back = run("heads", "rollback", config, "--why", "it is not")
    assert back.stdout == f"{version} → the head of the configuration\n"

    listed = run("heads", "list", config).stdout
    assert all(word in listed for word in (version, "retired", "promote", "rollback", "it is not"))
    found = json.loads(run("heads", "list", config, "--json").stdout)
    assert [line["why"] for line in found["promotions"]] == ["it is better", "it is not"]
    assert "@" in found["promotions"][0]["by"]


def test_the_gate_must_let_it_pass(config: str, file: str) -> None:
    """Without a verdict or with a bad one a head is promoted only with `--anyway`."""
    version = added(config)
    unjudged = run("heads", "promote", config, version)
    engine = open_store(EvidenceSettings(file=file))
    judge_head(engine, version, {"passes": False, "reasons": ["worse in value"]})
    refused = run("heads", "promote", config, version)
    judge_head(engine, version, {"passes": True, "reasons": []})
    engine.dispose()

    assert (unjudged.exit_code, refused.exit_code) == (1, 1)
    assert "nobody has compared it" in unjudged.stderr
    assert "worse in value" in refused.stderr
    assert run("heads", "promote", config, version).exit_code == 0


def test_a_head_for_other_models_is_not_promoted(tmp_path: Path, config: str, file: str) -> None:
    version = added(config)
    other = configuration("http://127.0.0.1:1", evidence={"file": file})
    other["models"] = {"other": other["models"]["tiny"]}

    shown = run("heads", "promote", write(tmp_path, other), version, "--anyway")

    assert shown.exit_code == 1
    assert "none of other at these tiers" in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("show", "unknown"), "there is no head unknown"),
        (("promote", "unknown"), "there is no head unknown"),
        (("rollback",), "none to roll back"),
    ],
)
def test_what_is_not_there(config: str, arguments: tuple[str, ...], text: str) -> None:
    name, *rest = arguments
    shown = run("heads", name, config, *rest)

    assert shown.exit_code == 1
    assert text in shown.stderr


def test_what_is_no_head_is_not_kept(config: str, tmp_path: Path) -> None:
    shown = run("heads", "add", config, str(tmp_path))

    assert shown.exit_code == 2
    assert "no head here" in shown.stderr
