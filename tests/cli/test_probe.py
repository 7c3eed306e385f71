"""`thinkmeter probe`: what it prints about a backend, and its exit status."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.cli.command import run, write
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.serving import configuration


async def probed(folder: Path, *urls: str, **model: Any) -> tuple[int, dict[str, str]]:
    """Run the probe. Returns its exit status, and the result of every check by `backend check`."""
    path = write(folder, configuration(*urls, model=model, timeouts={"total": 5, "connect": 1}))
    result = await asyncio.to_thread(run, "probe", path)
    rows = [line.split("│") for line in result.stdout.splitlines() if line.startswith("│")]
    assert result.stderr == ""
    return result.exit_code, {f"{row[2].strip()} {row[3].strip()}": row[4].strip() for row in rows}


TINY = "a thinking_token_budget 8, temperature"


async def test_probe_of_a_good_backend(backend: Backend, tmp_path: Path) -> None:
    """A backend that passes every check: status 0, one line per check."""
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
    """The probe fails if a backend ignores switched-off thinking or a tiny budget, and says so."""
    details = {"completion_tokens_details": {"reasoning_tokens": 200}}
    usage = {"prompt_tokens": 5, "completion_tokens": 210} | details
    backend.default = Fault(body={"choices": [{"message": {"content": "4"}}], "usage": usage})

    status, found = await probed(tmp_path, backend.url)

    assert status == 1
    assert found["a thinking off"] == "ignored"
    assert found[f"{TINY} 0"] == found[f"{TINY} 0.7"] == "ignored"


async def test_probe_of_a_backend_that_never_thinks(backend: Backend, tmp_path: Path) -> None:
    """If no reasoning arrives under a budget, the probe says that it cannot tell whether the budget holds."""
    backend.default = Fault(reasoning=0)

    status, found = await probed(tmp_path, backend.url)

    assert status == 0
    assert found[f"{TINY} 0"] == "unclear"


async def test_probe_of_a_backend_that_refuses(backend: Backend, tmp_path: Path) -> None:
    """If a backend refuses a budget, the probe fails and shows the backend's own message."""
    backend.script(Fault())
    message = "thinking_token_budget is set but reasoning_config is not configured"
    backend.default = Fault(status=400, message=message)

    status, found = await probed(tmp_path, backend.url)

    assert status == 1
    assert found["a thinking off"] == "holds"
    assert found[f"{TINY} 0"] == "refused"


async def test_probe_prints_what_a_backend_says_as_it_is(backend: Backend, tmp_path: Path) -> None:
    """Square brackets in a backend's message are printed as they are, not read as terminal markup."""
    backend.default = Fault(status=400, message="unknown token [/INST] in [red]template")

    path = write(tmp_path, configuration(backend.url))
    result = await asyncio.to_thread(run, "probe", path)

    assert result.exit_code == 1
    assert "unknown token [/INST] in [red]template" in result.stdout


async def test_probe_of_a_dead_backend(backend: Backend, tmp_path: Path) -> None:
    """A dead replica fails the probe; the live one still gets all checks."""
    status, found = await probed(tmp_path, "http://127.0.0.1:1", backend.url)

    assert status == 1
    assert found["a alive"] == "no"
    assert found["b alive"] == "yes"
    assert found["b thinking off"] == "holds"


async def test_probe_of_a_wrong_model(backend: Backend, tmp_path: Path) -> None:
    """A model that the backend does not serve is reported as missing."""
    status, found = await probed(tmp_path, backend.url, served_name="another")

    assert status == 1
    assert found["a model"] == "missing"


async def test_probe_of_a_tier_that_does_not_fit(tmp_path: Path) -> None:
    """A tier that is longer than the backend's context is reported."""
    async with Backend("tiny", max_model_len=280) as backend:
        status, found = await probed(tmp_path, backend.url)

    assert status == 1
    assert found["a tier long fits"] == "too long"


async def test_probe_of_efforts(backend: Backend, tmp_path: Path) -> None:
    """For a family with efforts, the probe tries the effort of each tier."""
    tiers = {"short": {"thinking": 16}, "long": {"thinking": 64, "effort": "high"}}

    status, found = await probed(tmp_path, backend.url, family="gpt-oss", tiers=tiers)

    assert status == 0
    assert found["a effort low (short)"] == found["a effort high (long)"] == "accepted"
    assert [r.json.get("reasoning_effort") for r in backend.requests if r.json] == ["low", "high"]


async def test_probe_of_a_model_without_reasoning(backend: Backend, tmp_path: Path) -> None:
    """For a model without reasoning, the probe only checks that it is there."""
    status, found = await probed(tmp_path, backend.url, family="plain", tiers={})

    assert (status, found) == (0, {"a alive": "yes", "a model": "yes"})
