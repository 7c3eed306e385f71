"""`thinkmeter probe`: what it prints of a backend and the status it ends with."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.cli.command import run, write
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.serving import configuration


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
