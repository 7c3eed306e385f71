"""The wheel contains what serving needs and installs into an empty environment without heavy libraries."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml

from gateway import __version__
from router_model.native.build import library_path
from tests.serving import configuration

ROOT = Path(__file__).parents[1]
HEAVY = [
    *("torch", "scipy", "sklearn", "matplotlib", "ctranslate2", "vllm", "transformers", "tokenizers"),
    *("pandas", "openai", "hypothesis", "pytest", "tests"),
]
OFFLINE = re.compile(
    r"failed to fetch|dns error|connect(ion)? (error|refused)|newconnectionerror|timed out", re.IGNORECASE
)


def run(*command: str, cwd: Path) -> str:
    """What a command prints. If it fails because the network is down, the test is skipped."""
    environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    result = subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=110, check=False
    )
    if result.returncode and OFFLINE.search(result.stderr):
        pytest.skip(f"PyPI is not reachable: {result.stderr.strip().splitlines()[-1]}")
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def uv() -> str:
    """The path of uv: on PATH, or where `make` installs it."""
    path = shutil.which("uv", path=f"{os.environ.get('PATH', '')}{os.pathsep}{ROOT / '.venv-tools/bin'}")
    return path or pytest.skip("uv is not installed; `make test` installs it")


@pytest.fixture(scope="module")
def wheel(uv: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this working tree."""
    folder = tmp_path_factory.mktemp("wheel")
    run(uv, "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT), cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(uv: str, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with nothing but the wheel and its core dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    venv = folder / "venv"
    run(uv, "venv", "--quiet", "--python", sys.executable, str(venv), cwd=folder)
    run(uv, "pip", "install", "--quiet", "--python", str(venv / "bin/python"), str(wheel), cwd=folder)
    return venv / "bin"


def test_wheel_holds_the_code_and_its_data(wheel: Path) -> None:
    """It contains both packages, the kernel, the family table and `py.typed`, but no tests or documents."""
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"thinkmeter-{__version__}.dist-info"

    assert {"gateway/config/families.yaml", "gateway/py.typed", "router_model/py.typed"} <= names
    sources = {
        str(p.relative_to(ROOT)) for f in ("gateway", "router_model") for p in (ROOT / f).rglob("*.py")
    }
    assert sources == {name for name in names if name.endswith(".py")}
    (library,) = (name for name in names if name.endswith(".so"))
    assert library == str(library_path().relative_to(ROOT))
    assert {f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"} <= names
    assert {name.split("/")[0] for name in names} == {"gateway", "router_model", info}


def test_metadata(wheel: Path) -> None:
    """Name, version, license and dependencies are those of pyproject.toml; only extras need heavy ones."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = message_from_bytes(archive.read(f"thinkmeter-{__version__}.dist-info/METADATA"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert (metadata["Name"], metadata["Version"]) == ("thinkmeter", __version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    core = [r for r in metadata.get_all("Requires-Dist", []) if "extra ==" not in r]
    assert len(core) == len(project["dependencies"])
    names = {re.split(r"[^a-z0-9-]", requirement.lower())[0] for requirement in core}
    assert not names & {*HEAVY, "scikit-learn"}
    assert set(metadata.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])


def test_runs_in_an_empty_environment(environment: Path, tmp_path: Path) -> None:
    """With nothing but the core dependencies, the command works and the serving code can be imported."""
    config = tmp_path / "gateway.yaml"
    config.write_text(yaml.safe_dump(configuration("http://127.0.0.1:1")))

    assert run(str(environment / "thinkmeter"), "version", cwd=tmp_path) == f"{__version__}\n"
    assert "valid" in run(str(environment / "thinkmeter"), "check", str(config), cwd=tmp_path)
    decided = run(str(environment / "thinkmeter"), "route", str(config), "hello", cwd=tmp_path)
    assert "P(right)" in decided
    assert imported_heavy(environment / "python", tmp_path) == ""


def test_serving_imports_nothing_heavy(tmp_path: Path) -> None:
    """Serving loads no heavy library, even if it is installed."""
    assert imported_heavy(Path(sys.executable), ROOT) == ""


def imported_heavy(python: Path, cwd: Path) -> str:
    """The names of the heavy libraries that importing the serving code loads."""
    code = (
        "import sys, gateway.app, gateway.cli.main, gateway.cli.probe, router_model.heuristic\n"
        f"print(*sorted(set({HEAVY!r}) & set(sys.modules)), end='')"
    )
    return run(str(python), "-c", code, cwd=cwd)
