"""Commands, panels and alerts that the runbook and the operations page name exist."""

from __future__ import annotations

import re

from typer.main import get_command

from gateway.cli.main import cli
from tests.deploy.reading import ROOT, panels, read, rules

TEXT = "".join((ROOT / "docs" / name).read_text() for name in ("runbook.md", "operations.md"))


def test_commands_exist() -> None:
    """Every `thinkmeter` command exists, and so does every service in a compose command."""
    commands = set(re.findall(r"`[^`\n]*\bthinkmeter ([a-z][a-z-]+)\b", TEXT))
    options = r"(?: --?[A-Za-z-]+(?: \d+m?)?)*"
    services = set(re.findall(rf"docker compose (?:exec|logs|stop|start|run){options} ([a-z]+)", TEXT))

    assert {"check", "probe", "budget"} <= commands <= set(getattr(get_command(cli), "commands", {}))
    assert {"gateway", "redis"} <= services <= set(read("compose.yaml")["services"])


def test_panels_and_alerts_exist() -> None:
    """Words in italics are a dashboard, a row or a panel, and every alert exists."""
    boards = read("deploy/grafana/panels.yaml").values()
    known = {board["title"] for board in boards} | {panel["title"] for _, panel in panels()}
    known |= {row["heading"] for board in boards for row in board["rows"]} | {"Page.", "Ticket."}
    named = {" ".join(words.split()) for words in re.findall(r"(?<!\*)\*([A-Z][^*`]+)\*(?!\*)", TEXT)}

    assert named - known == set()
    assert set(re.findall(r"\bThinkmeter[A-Z]\w+", TEXT)) == {r["alert"] for r in rules() if "alert" in r}
