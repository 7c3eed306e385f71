"""The `thinkmeter` command: what it prints and the status it ends with."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from gateway import __version__, cli
from gateway.config import key_digest
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.serving import configuration


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are not broken at 80 columns."""
    for console in (cli.out, cli.err):
        monkeypatch.setattr(console, "_width", 300)


def run(*arguments: str, stdin: str | None = None, **environ: str) -> Result:
    result = CliRunner().invoke(cli.cli, list(arguments), input=stdin, env=environ)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def valid(tmp_path: Path) -> str:
    """A valid configuration file."""
    return write(tmp_path, configuration("http://127.0.0.1:1", price=0.05))


def write(folder: Path, settings: Any) -> str:
    path = folder / "thinkmeter.yaml"
    path.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings, sort_keys=False))
    return str(path)


# --- check ------------------------------------------------------------------------------------------


def test_check_valid(valid: str) -> None:
    """A valid file: status 0, and a table of models and tiers."""
    result = run("check", valid)

    assert result.exit_code == 0
    assert "valid" in result.stdout
    assert "direct 0+32, short 16+32, medium 64+32, long 256+32" in result.stdout
    assert "0 API keys, 0 rules, price 0.05" in result.stdout
    assert result.stderr == ""


MISTAKES: list[tuple[str, list[str]]] = [
    ("models:\n  tiny:\n    familly: qwen3\n", ["line 3", "models.tiny.familly", "did you mean 'family'"]),
    ("models:\n  tiny: {family: qwen3}\n", ["line 2", "models.tiny.replicas", "missing"]),
    ("price: cheap\nmodels: {}\n", ["line 1", "price", "line 2", "models"]),
    ("models: {tiny: {family: qwen\n", ["line 2", "not YAML"]),
    ("price: 1\nprice: 2\n", ["line 2", "price", "named twice"]),
    ("[1, 2]", ["line 1", "mapping"]),
    ("server:\n  host: ${NO_SUCH_VARIABLE}\n", ["line 2", "server.host", "NO_SUCH_VARIABLE"]),
    (
        "models:\n  tiny:\n    family: none\n    replicas: [{url: 'http://a'}]\n",
        ["line 3", "models.tiny.family", "unknown family 'none'", "qwen3"],
    ),
    (
        "models:\n  t: {family: qwen3, replicas: [{url: 'http://a'}]}\nrules:\n- name: all\n  floor: huge\n",
        ["line 5", "rules.0.floor", "no tier 'huge'", "direct, short, medium, long"],
    ),
]


@pytest.mark.parametrize(("text", "expected"), MISTAKES)
def test_check_says_what_is_wrong_and_where(tmp_path: Path, text: str, expected: list[str]) -> None:
    """A bad file: status 2, and on standard error the file, the line, the setting and the mistake."""
    path = write(tmp_path, text)

    result = run("check", path)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert all(line.startswith(f"{path}: ") for line in result.stderr.splitlines())
    for part in expected:
        assert part in result.stderr


def test_check_names_every_mistake(tmp_path: Path) -> None:
    """All mistakes are named in one go, in the order of the file."""
    text = "price: -1\nretries: many\nserver:\n  prot: 1\nmodels: {}\n"

    result = run("check", write(tmp_path, text))

    lines = [line.split(": ")[1] for line in result.stderr.splitlines()]
    assert lines == ["line 1", "line 2", "line 4", "line 5"]


@pytest.mark.parametrize("command", [["check"], ["probe"], ["serve"], ["route"]])
def test_missing_file(tmp_path: Path, command: list[str]) -> None:
    """A file that cannot be read is a mistake like any other: status 2, no traceback."""
    arguments = [*command, str(tmp_path / "none.yaml"), *(["hello"] if command == ["route"] else [])]

    result = run(*arguments)

    assert result.exit_code == 2
    assert "cannot read" in result.stderr
    assert "Traceback" not in result.output


def test_path_from_the_environment(valid: str) -> None:
    """THINKMETER_CONFIG stands in for the argument; without either, the usage is shown."""
    assert run("check", THINKMETER_CONFIG=valid).exit_code == 0
    missing = run("check")
    assert missing.exit_code == 2
    assert "Missing argument" in missing.output


# --- route, hash-key, version -----------------------------------------------------------------------


def test_route(valid: str) -> None:
    """The decision for a prompt: the tier, the reason and each tier's estimates."""
    result = run("route", valid, "hello")

    assert result.exit_code == 0
    assert ": price" in result.stdout
    for part in (
        "direct",
        "short",
        "medium",
        "long",
        "P(right)",
        "difficulty 0.",
        "price 0.05 per 1,000 tokens",
    ):
        assert part in result.stdout


def test_route_with_a_pinned_tier(valid: str) -> None:
    """`--model tiny:long` decides as a request with that name would."""
    result = run("route", valid, "hello", "--model", "tiny:long")

    assert "long: pinned" in result.stdout


@pytest.mark.parametrize(("model", "message"), [("none", "does not exist"), ("tiny:huge", "no tier 'huge'")])
def test_route_of_an_unknown_model(valid: str, model: str, message: str) -> None:
    """An unknown model or tier: status 2, and the same message a client gets."""
    result = run("route", valid, "hello", "--model", model)

    assert result.exit_code == 2
    assert message in result.stderr


def test_route_with_markup_in_the_prompt(valid: str) -> None:
    """Square brackets in a prompt are no terminal markup."""
    assert run("route", valid, "[/red] [bold] what?").exit_code == 0


@pytest.mark.parametrize("stdin", ["sk-secret", "sk-secret\n", "sk-secret\r\nmore\n"])
def test_hash_key(stdin: str) -> None:
    """The hash that `keys[].hash` takes is printed, and never the secret."""
    result = run("hash-key", stdin=stdin)

    assert result.exit_code == 0
    assert result.stdout.strip() == key_digest("sk-secret")
    assert "secret" not in result.output


def test_hash_key_of_nothing() -> None:
    """Without a key on standard input: status 2."""
    assert run("hash-key", stdin="").exit_code == 2


def test_version() -> None:
    """The version, alone on its line."""
    assert run("version").stdout == f"{__version__}\n"


def test_no_command_shows_the_help() -> None:
    """Called alone, the command lists what it can do."""
    shown = run().output

    for command in ("serve", "check", "probe", "route", "hash-key", "version"):
        assert command in shown


# --- serve ------------------------------------------------------------------------------------------


def test_serve_refuses_a_bad_file(tmp_path: Path) -> None:
    """As a process of its own: status 2, the line on standard error, nothing listens, no traceback."""
    path = write(tmp_path, "price: cheap\nmodels: {}\n")

    command = [sys.executable, "-m", "gateway", "serve", path, "--port", "0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 2
    assert "line 1: price" in result.stderr
    assert "Traceback" not in result.stderr


def test_serve_on_a_port_in_use(tmp_path: Path, valid: str) -> None:
    """A port that is taken: an error and a status that is not 0."""
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


# --- probe ------------------------------------------------------------------------------------------


async def probed(folder: Path, *urls: str, **model: Any) -> tuple[int, dict[str, str]]:
    """Exit status, and the result of every check by `backend check`."""
    path = write(folder, configuration(*urls, model=model, timeouts={"total": 5, "connect": 1}))
    result = await asyncio.to_thread(run, "probe", path)
    rows = [line.split("│") for line in result.stdout.splitlines() if line.startswith("│")]
    assert result.stderr == ""
    return result.exit_code, {f"{row[2].strip()} {row[3].strip()}": row[4].strip() for row in rows}


TINY = "a thinking_token_budget 8, temperature"


async def test_probe_of_a_good_backend(backend: Backend, tmp_path: Path) -> None:
    """A backend that holds everything: status 0, one line for every check."""
    status, found = await probed(tmp_path, backend.url)

    assert status == 0
    assert found == {
        "a alive": "yes",
        "a model": "yes",
        "a thinking off": "holds",
        f"{TINY} 0": "holds",
        f"{TINY} 0.7": "holds",
    }


async def test_probe_of_a_backend_that_thinks_anyway(backend: Backend, tmp_path: Path) -> None:
    """Switched-off thinking and a tiny budget that are ignored are shown, and fail the probe."""
    details = {"completion_tokens_details": {"reasoning_tokens": 200}}
    usage = {"prompt_tokens": 5, "completion_tokens": 210} | details
    backend.default = Fault(body={"choices": [{"message": {"content": "4"}}], "usage": usage})

    status, found = await probed(tmp_path, backend.url)

    assert status == 1
    assert found["a thinking off"] == "ignored"
    assert found[f"{TINY} 0"] == found[f"{TINY} 0.7"] == "ignored"


async def test_probe_of_a_backend_that_never_thinks(backend: Backend, tmp_path: Path) -> None:
    """Where no reasoning is seen under a budget, the probe says that it cannot tell."""
    backend.default = Fault(reasoning=0)

    status, found = await probed(tmp_path, backend.url)

    assert status == 0
    assert found[f"{TINY} 0"] == "unclear"


async def test_probe_of_a_backend_that_refuses(backend: Backend, tmp_path: Path) -> None:
    """A refused budget is shown with the backend's own words, and fails the probe."""
    backend.script(Fault())
    message = "thinking_token_budget is set but reasoning_config is not configured"
    backend.default = Fault(status=400, message=message)

    status, found = await probed(tmp_path, backend.url)

    assert status == 1
    assert found["a thinking off"] == "holds"
    assert found[f"{TINY} 0"] == "refused"


async def test_probe_prints_what_a_backend_says_as_it_is(backend: Backend, tmp_path: Path) -> None:
    """Square brackets in a backend's message are no terminal markup."""
    backend.default = Fault(status=400, message="unknown token [/INST] in [red]template")

    path = write(tmp_path, configuration(backend.url))
    result = await asyncio.to_thread(run, "probe", path)

    assert result.exit_code == 1
    assert "unknown token [/INST] in [red]template" in result.stdout


async def test_probe_of_a_dead_backend(backend: Backend, tmp_path: Path) -> None:
    """Of two replicas the dead one fails the probe; the live one is still asked everything."""
    status, found = await probed(tmp_path, "http://127.0.0.1:1", backend.url)

    assert status == 1
    assert found["a alive"] == "no"
    assert found["b alive"] == "yes"
    assert found["b thinking off"] == "holds"


async def test_probe_of_a_wrong_model(backend: Backend, tmp_path: Path) -> None:
    """A model that the backend does not serve is missing."""
    status, found = await probed(tmp_path, backend.url, served_name="another")

    assert status == 1
    assert found["a model"] == "missing"


async def test_probe_of_a_tier_that_does_not_fit(tmp_path: Path) -> None:
    """A tier longer than the backend's context is named."""
    async with Backend("tiny", max_model_len=280) as backend:
        status, found = await probed(tmp_path, backend.url)

    assert status == 1
    assert found["a tier long fits"] == "too long"


async def test_probe_of_efforts(backend: Backend, tmp_path: Path) -> None:
    """A family with efforts has each tier's effort tried."""
    tiers = {"short": {"thinking": 16}, "long": {"thinking": 64, "effort": "high"}}

    status, found = await probed(tmp_path, backend.url, family="gpt-oss", tiers=tiers)

    assert status == 0
    assert found["a effort low (short)"] == found["a effort high (long)"] == "accepted"
    assert [r.json.get("reasoning_effort") for r in backend.requests if r.json] == ["low", "high"]


async def test_probe_of_a_model_without_reasoning(backend: Backend, tmp_path: Path) -> None:
    """A plain model is asked only whether it is there."""
    status, found = await probed(tmp_path, backend.url, family="plain", tiers={})

    assert (status, found) == (0, {"a alive": "yes", "a model": "yes"})
