"""`thinkmeter probe` against real backends."""

from pathlib import Path

import yaml

from .conftest import probe, results
from .processes import Replica, free_port


def test_probe(config: Path, replicas: list[Replica]) -> None:
    """Every backend is alive, serves the model, switches thinking off and keeps to a tiny budget."""
    status, output = probe(config)
    assert status == 0, output
    for replica in replicas:
        found = results(output, replica.name)
        assert (found["alive"], found["model"], found["thinking off"]) == ("yes", "yes", "holds"), output
        budgets = [result for check, result in found.items() if check.startswith("thinking_token_budget")]
        assert budgets, output
        assert set(budgets) == {"holds"}, output
        assert found["thought"] == "kept apart", output
        # the tiny reasoner calls no tools, and its server has no tool parser
        assert found["tool call under a tiny budget"] in ("not offered", "unclear"), output
        assert found["JSON under a tiny budget"] in ("valid", "unclear"), output


def test_probe_of_a_dead_backend(config: Path, replicas: list[Replica], tmp_path: Path) -> None:
    """A backend that cannot be reached is reported as not alive, and the probe fails."""
    settings = yaml.safe_load(config.read_text())
    settings["models"] = {"tiny": settings["models"]["tiny"]}
    settings["models"]["tiny"]["replicas"] = [
        {"name": "running", "url": replicas[0].url},
        {"name": "gone", "url": f"http://127.0.0.1:{free_port()}"},
    ]
    path = tmp_path / "half.yaml"
    path.write_text(yaml.safe_dump(settings))
    status, output = probe(path)
    assert status != 0
    assert results(output, "running")["alive"] == "yes"
    assert results(output, "gone") == {"alive": "no"}
