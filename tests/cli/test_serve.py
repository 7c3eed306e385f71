"""`thinkmeter serve` when it cannot start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.command import write


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
