"""Checks compose.yaml, the Dockerfile and the files they mount, without Docker."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.config.loader import parse
from tests.deploy.reading import ROOT, read

EXAMPLE = dict(re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
SERVICES: dict[str, Any] = read("compose.yaml")["services"]
OURS = {name: service for name, service in SERVICES.items() if not name.startswith("vllm")}
HANDED = {
    name: "redis://:x@redis:6379/0" if name == "REDIS_URL" else name
    for name in SERVICES["gateway"]["environment"]
}
"""The variables of the gateway's container."""


@pytest.mark.parametrize("name", SERVICES)
def test_image_is_pinned(name: str) -> None:
    """Each image names an exact version."""
    image = re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", SERVICES[name]["image"])
    assert re.search(r":v?\d+\.\d+\.\d+(-[a-z0-9.]+)?$", image), image


def test_base_image_is_pinned() -> None:
    """The Dockerfile builds on an exact version, and every stage comes from it."""
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON_IMAGE=python:\d+\.\d+\.\d+-", text, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${PYTHON_IMAGE}", "build", "runtime"}


@pytest.mark.parametrize("name", OURS)
def test_service_is_hardened(name: str) -> None:
    """Each service is read-only, without capabilities and without new privileges."""
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_service_says_whether_it_is_healthy(name: str) -> None:
    """Each service has a health check, its own or its image's, and waits until those it needs are healthy."""
    service = SERVICES[name]
    target = service.get("build", {}).get("target")
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    built_in = target and any(f" AS {target}\n" in stage and "\nHEALTHCHECK " in stage for stage in stages)
    assert "healthcheck" in service or built_in
    for condition in service.get("depends_on", {}).values():
        assert condition == {"condition": "service_healthy"}


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_for_this_machine_only(name: str) -> None:
    """Ports are published on 127.0.0.1 only."""
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_redis_and_the_model_are_out_of_reach() -> None:
    """Redis and the model are on the internal network only."""
    assert read("compose.yaml")["networks"]["back"] == {"internal": True}
    assert SERVICES["redis"]["networks"] == SERVICES["tiny"]["networks"] == ["back"]


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - OURS.keys()))
def test_weights_are_kept_whoever_the_image_runs_as(name: str) -> None:
    """vLLM's weights go to a volume where every user may write, not to a home directory."""
    service = SERVICES[name]
    folder = Path(service["environment"]["HF_HOME"])
    (mount,) = service["volumes"]
    volume, path = mount.split(":")
    assert volume in read("compose.yaml")["volumes"]
    assert folder.is_relative_to(path)
    assert path == "/var/tmp"  # every image has it, writable by all, and a new volume takes over its mode


def test_a_replaced_configuration_is_seen() -> None:
    """The folder is mounted, not the file: a container keeps a mounted file that an editor has replaced."""
    service = SERVICES["gateway"]
    [mount] = [each for each in service["volumes"] if each.startswith("./")]
    source, target, _ = mount.split(":")
    assert (ROOT / source).is_dir()
    assert service["environment"]["THINKMETER_CONFIG"].startswith(f"{target}/${{GATEWAY_CONFIG")
    named = EXAMPLE["GATEWAY_CONFIG"], "gateway.yaml"
    assert all((ROOT / source / name).is_file() for name in named)


@pytest.mark.parametrize("path", sorted((ROOT / "deploy/compose").glob("*.yaml")), ids=lambda path: path.name)
def test_evidence_is_off_and_has_a_place(path: Path) -> None:
    """Once the `#` is gone, all gateways have the file in a volume that their user may write to."""
    text = path.read_text()
    on = parse(text.replace("# evidence:", "evidence:"), HANDED).evidence
    [mount] = [each for each in SERVICES["gateway"]["volumes"] if each.startswith("evidence:")]
    folder = mount.split(":")[1]

    assert parse(text, HANDED).evidence is None
    assert on is not None
    assert str(Path(on.file).parent) == folder
    assert f"install -d -o 10001 -g 10001 -m 0700 {folder}\n" in (ROOT / "Dockerfile").read_text()


def test_every_variable_is_in_the_example() -> None:
    """Every variable in compose.yaml is in .env.example, and secrets have no default."""
    text = (ROOT / "compose.yaml").read_text()
    used = dict(re.findall(r"(?<!\$)\$\{([A-Z_]+)(:[-?])", text))
    assert set(used) | {"COMPOSE_PROFILES"} == set(EXAMPLE)
    secret = {name for name in used if name.endswith(("_KEY", "_PASSWORD"))}
    assert {used[name] for name in secret} == {":?"}


def test_what_is_mounted_exists() -> None:
    """Each mounted file is in the repository."""
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", [])]
    files = [re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", mount).split(":")[0] for mount in mounts]
    assert [file for file in files if file.startswith("./") and not (ROOT / file).exists()] == []


@pytest.mark.parametrize("path", sorted((ROOT / "deploy/compose").glob("*.yaml")), ids=lambda path: path.name)
def test_gateway_configuration_is_valid(path: Path) -> None:
    """Each configuration is valid with the variables of the container, and draining ends in time."""
    settings = parse(path.read_text(), HANDED)
    assert settings.keys
    grace = int(SERVICES["gateway"]["stop_grace_period"].removesuffix("s"))
    assert grace > settings.server.drain_delay + settings.server.drain_timeout


def test_nothing_secret_is_in_the_build() -> None:
    """The build context has what the Dockerfile copies and nothing else."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    wanted = {source.split("/")[0] for line in copied for source in line.split()}
    assert {line[1:] for line in lines if line.startswith("!")} == wanted


@pytest.mark.parametrize("profile", ["", "gpu", "cpu"])
def test_docker_compose_reads_it(profile: str) -> None:
    """Compose accepts the file with each profile."""
    compose = shutil.which("docker-compose") or pytest.skip("docker-compose is not installed")
    environ = os.environ | {"COMPOSE_PROFILES": profile}
    command = (
        compose,
        "--project-directory",
        str(ROOT),
        "--env-file",
        str(ROOT / ".env.example"),
        "config",
        "-q",
    )
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_haproxy_takes_its_configuration() -> None:
    """HAProxy accepts its configuration."""
    haproxy = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or pytest.skip(
        "no haproxy"
    )
    command = (haproxy, "-c", "-f", str(ROOT / "deploy/haproxy/haproxy.cfg"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
