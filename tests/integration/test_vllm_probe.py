"""`thinkmeter probe` against real backends."""

from pathlib import Path

import yaml

from .conftest import probe
from .processes import Replica, free_port


def results(output: str, replica: str) -> dict[str, str]:
    """The table's result by check, for one replica of the model `tiny`."""
    cells = [[cell.strip() for cell in line.split("│")] for line in output.splitlines()]
    return {row[3]: row[4] for row in cells if len(row) > 5 and row[1:3] == ["tiny", replica]}


def test_probe(config: Path, replicas: list[Replica]) -> None:
    """Every backend is alive, serves the model, switches thinking off and keeps to a tiny budget."""
    status, output = probe(config)
    assert status == 0, output
    for replica in replicas:
        found = results(output, replica.name)
        assert (found["alive"], found["model"], found["thinking off"]) == ("yes", "yes", "holds"), output
        budgets = [result for check, result in found.items() if "budget" in check]
        assert budgets, output
        assert set(budgets) == {"holds"}, output


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
