"""`thinkmeter serve` when it cannot start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.command import run, write
from tests.serving import configuration


def test_serve_refuses_a_bad_file(tmp_path: Path) -> None:
    """A bad file gives status 2 and its line on standard error, without a traceback; nothing listens."""
    path = write(tmp_path, "price: cheap\nmodels: {}\n")

    command = [sys.executable, "-m", "gateway", "serve", path, "--port", "0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 2
    assert "line 1: price" in result.stderr
    assert "Traceback" not in result.stderr


def test_serve_on_a_port_in_use(tmp_path: Path, valid: str) -> None:
    """A port in use gives an error and a status that is not 0."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "gateway", "serve", "--port", port]
        environ = os.environ | {"THINKMETER_CONFIG": valid}
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ)

    assert result.returncode != 0
    assert "address already in use" in result.stderr


def test_serve_refuses_known_keys_where_others_can_reach_it(tmp_path: Path) -> None:
    """With keys of the examples, `serve` names their lines and ends, unless it listens on loopback."""
    settings = configuration(
        "http://a", keys=[{"name": "web", "key": "change-me-web"}, {"name": "b", "key": "x"}]
    )
    path = write(tmp_path, settings | {"admin": {"key": "change-me-admin"}})
    lines = Path(path).read_text().splitlines()

    result = run("serve", path, "--host", "0.0.0.0")

    assert result.exit_code == 2
    assert f"line {lines.index('- name: web') + 1}: keys.0: everybody knows this key" in result.stderr
    assert f"line {lines.index('admin:') + 1}: admin: everybody knows this key" in result.stderr
    assert "keys.1" not in result.stderr
    assert "change-me" not in result.stderr
    assert "everybody knows" not in run("check", path).stdout
    reachable = write(tmp_path, Path(path).read_text().replace("access_log: false", "host: 0.0.0.0"))
    assert "admin: everybody knows this key" in run("check", reachable).stdout
