"""Installs what the bench measures and uses beside this gateway, from PyPI or npm, below `.bench`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.bench.targets import HOMES, Target


def installed(target: Target) -> bool:
    return (HOMES / target.name / "installed").exists()


def install(target: Target) -> str | None:
    """Install the target into a folder of its own unless that exists. If it fails, return the reason."""
    if installed(target) or not (target.packages or target.npm):
        return None
    home = HOMES / target.name
    print(f"installing {target.name} …", file=sys.stderr, flush=True)
    if target.npm:
        if not (shutil.which("npm") and shutil.which("node")):
            return "needs Node.js: on Debian, apt-get install nodejs npm"
        home.mkdir(parents=True, exist_ok=True)
        (home / "package.json").write_text(json.dumps(target.npm))
        steps = [["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(home)]]
    else:
        steps = [
            [sys.executable, "-m", "venv", "--clear", str(home)],
            [str(home / "bin/pip"), "install", "-q", *target.packages],
        ]
    for step in steps:
        result = subprocess.run(step, capture_output=True, text=True, check=False)
        if result.returncode:
            return (result.stderr.strip().splitlines() or ["no message"])[-1]
    (home / "installed").touch()
    return None


def versions(target: Target) -> dict[str, str]:
    """Versions of what was installed for the target, by name."""
    home = HOMES / target.name
    if target.npm:
        return {name: _npm_version(home, name) for name in target.npm["dependencies"]}
    if not target.packages:
        return {}
    names = [package.partition("[")[0] for package in target.packages]
    code = "import sys,json,importlib.metadata as m;print(json.dumps({n:m.version(n) for n in sys.argv[1:]}))"
    command = [str(home / "bin/python"), "-c", code, *names]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    versions: dict[str, str] = json.loads(found.stdout)
    return versions


def _npm_version(home: Path, name: str) -> str:
    package = json.loads((home / "node_modules" / name / "package.json").read_text())
    return str(package["version"])
