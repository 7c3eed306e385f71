"""`thinkmeter probe` against real backends."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from examples.tiny_reasoner.serve import WEIGHTS

from .conftest import REPOSITORY, TIERS
from .processes import Replica, free_port, stopping, vllm_server


def probe(config: Path) -> tuple[int, str]:
    ran = subprocess.run(
        [sys.executable, "-m", "gateway", "probe", str(config)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=REPOSITORY,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"},
    )
    return ran.returncode, ran.stdout + ran.stderr


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
        budgets = [result for check, result in found.items() if check.startswith("thinking_token_budget")]
        assert budgets, output
        assert set(budgets) == {"holds"}, output
        assert found["thought"] == "kept apart", output
        # the tiny reasoner calls no tools, and its server has no tool parser
        assert found["tool call under a tiny budget"] in ("not offered", "unclear"), output
        assert found["JSON under a tiny budget"] in ("valid", "unclear"), output


def test_probe_of_a_lost_parser(vllm_python: Path, tmp_path: Path) -> None:
    """A vLLM without a reasoning parser fails the probe, which names the flags of the family."""
    server = vllm_server("plain", vllm_python, WEIGHTS, tmp_path, options=[])
    settings = {
        "models": {
            "tiny": {"family": "qwen3", "replicas": [{"name": "plain", "url": server.url}], "tiers": TIERS}
        }
    }
    path = tmp_path / "plain.yaml"
    path.write_text(yaml.safe_dump(settings))
    with stopping([server]):
        server.wait_until_ready("/health")
        status, output = probe(path)
    found = results(output, "plain")
    assert status == 1, output
    assert found["thinking_token_budget 8, temperature 0"] == "refused", output
    assert (found["thinking on"], found["thought"]) == ("accepted", "in the answer"), output
    assert '--reasoning-parser qwen3 --reasoning-config \'{"reasoning_start_str": "<think>"' in output


def test_probe_of_a_dead_backend(config: Path, replicas: list[Replica], tmp_path: Path) -> None:
    """A backend that cannot be reached is reported as not alive, and the probe fails."""
    settings = yaml.safe_load(config.read_text())
    del settings["models"]["endless"]
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
