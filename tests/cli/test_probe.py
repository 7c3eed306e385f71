"""`thinkmeter probe`: what it prints about a backend, and its exit status."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import run, write
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.serving import configuration


async def printed(folder: Path, *urls: str, **model: Any) -> tuple[int, dict[str, str], list[str]]:
    """Run the probe. Returns its exit status, the results by `backend check`, and the lines of advice."""
    path = write(folder, configuration(*urls, model=model, timeouts={"total": 5, "connect": 1}))
    result = await asyncio.to_thread(run, "probe", path)
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    rows = [line.split("│") for line in lines if line.startswith("│")]
    found = {f"{row[2].strip()} {row[3].strip()}": row[4].strip() for row in rows}
    return result.exit_code, found, [line for line in lines if line.startswith("tiny")]


async def probed(folder: Path, *urls: str, **model: Any) -> tuple[int, dict[str, str]]:
    status, found, _ = await printed(folder, *urls, **model)
    return status, found


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
        "a tool call under a tiny budget": "unclear",
        "a JSON under a tiny budget": "unsafe",  # the fake says t0 t1, whatever it is asked
        "a thought": "kept apart",
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


async def test_probe_of_a_small_context(tmp_path: Path) -> None:
    """The probe of a backend that refuses budgets asks for a thought that its context has room for."""
    async with Backend("tiny", max_model_len=400) as backend:
        backend.default = Fault(status=400, message="no budget", refuses="thinking_token_budget")
        _, found = await probed(tmp_path, backend.url)

    assert (found["a thinking on"], found["a thought"]) == ("accepted", "kept apart")


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

    status, found, advice = await printed(tmp_path, backend.url)

    assert status == 1
    assert found["a thinking off"] == "holds"
    assert found[f"{TINY} 0"] == "refused"
    assert len(advice) == 1
    assert advice[0].startswith("tiny a: start vLLM with --reasoning-parser qwen3 --reasoning-config '{")
    assert '"reasoning_end_str": "\\nConsidering the limited time, I answer now.\\n</think>"}\'' in advice[0]
    assert advice[0].endswith("or set `thinking_budget: false` for the model")


def answered(**message: Any) -> Fault:
    """A backend that keeps a budget of 8 tokens and answers this, whatever it is asked."""
    usage = {"prompt_tokens": 5, "completion_tokens": 20}
    details = {"completion_tokens_details": {"reasoning_tokens": message.pop("reasoning", 8)}}
    choice = {"message": message, "finish_reason": message.pop("finish", "stop")}
    return Fault(body={"choices": [choice], "usage": usage | details})


def called(arguments: str, **message: Any) -> Fault:
    """A backend whose answer is both a tool call and a text with these arguments."""
    calls = [{"id": "c", "type": "function", "function": {"name": "save_note", "arguments": arguments}}]
    return answered(content=arguments, tool_calls=calls, finish="tool_calls", **message)


UNDER = ("a tool call under a tiny budget", "a JSON under a tiny budget")


async def test_probe_of_arguments_that_stay_valid(backend: Backend, tmp_path: Path) -> None:
    """If arguments stay valid on every replica, the probe names the setting that allows budgets."""
    backend.script(answered(content="4", reasoning=0))
    backend.default = called('{"text": "The ferry"}')

    status, found, advice = await printed(tmp_path, backend.url)

    assert (status, [found[check] for check in UNDER]) == (0, ["valid", "valid"])
    assert advice == ["tiny: `budget_with_tools: true` is safe, as far as these questions show"]
    asked = [
        r.json for r in backend.requests if r.json and ("tools" in r.json or "response_format" in r.json)
    ]
    assert [body["thinking_token_budget"] for body in asked] == [8, 24, 48] * 2


@pytest.mark.parametrize(
    ("model", "expected", "result"),
    [({}, 0, "unsafe"), ({"budget_with_tools": True}, 1, "spoiled")],
)
async def test_probe_of_spoiled_arguments(
    backend: Backend, tmp_path: Path, model: dict[str, Any], expected: int, result: str
) -> None:
    """Spoiled arguments fail the probe only if the model sends budgets with tools."""
    backend.script(answered(content="4", reasoning=0))
    backend.default = called('{"text": "The fer')

    status, found, advice = await printed(tmp_path, backend.url, **model)

    assert [found[check] for check in UNDER] == [result, result]
    assert status == expected
    assert not any("is safe" in line for line in advice)


async def test_probe_of_a_lost_parser(backend: Backend, tmp_path: Path) -> None:
    """A thought in the text of an answer fails the probe, which names the flag to set."""
    backend.script(answered(content="4", reasoning=0))
    backend.default = answered(content="<think>\nhm\n</think>\n\n4", reasoning=0)

    status, found, advice = await printed(tmp_path, backend.url)

    assert (status, found["a thought"], found[f"{TINY} 0"]) == (1, "in the answer", "unclear")
    assert advice == ["tiny a: start vLLM with --reasoning-parser qwen3"]


async def test_probe_of_a_lost_parser_that_refuses_budgets(backend: Backend, tmp_path: Path) -> None:
    """A vLLM without a reasoning parser refuses budgets, so the thought is looked for without one."""
    refusal = Fault(status=400, message="thinking_token_budget is set but reasoning_config is not configured")
    backend.script(answered(content="4", reasoning=0))
    backend.script(refusal, times=2)
    backend.default = answered(content="hm\n</think>\n\n4", reasoning=0)

    status, found, advice = await printed(tmp_path, backend.url)

    assert (status, found[f"{TINY} 0"]) == (1, "refused")
    assert (found["a thinking on"], found["a thought"]) == ("accepted", "in the answer")
    assert "thinking_token_budget" not in (backend.requests[-1].json or {})
    assert advice[-1] == "tiny a: start vLLM with --reasoning-parser qwen3"


async def test_probe_of_a_family_without_budgets(backend: Backend, tmp_path: Path) -> None:
    """A family that has neither budgets nor efforts is asked to think, to look for its thought."""
    tiers = {"direct": {"thinking": 0}, "long": {"thinking": 64}}

    status, found = await probed(tmp_path, backend.url, family="gemma", tiers=tiers)

    assert (status, found["a thinking on"], found["a thought"]) == (0, "accepted", "kept apart")


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
