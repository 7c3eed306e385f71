"""A vLLM that was started without any option for thinking.

It refuses thinking budgets and leaves thoughts in the content. It also has a small context, and an adapter
whose card in the model list has no context.
"""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.tiny_reasoner.chat import THINK
from examples.tiny_reasoner.serve import WEIGHTS
from tests.serving import Running, configuration, serving

from .adapter import write_adapter
from .conftest import Puzzle, probe, results
from .processes import BARE, BARE_CONTEXT, Replica, fetch, stopping, vllm_server

TIERS = {
    "direct": {"thinking": 0, "answer": 40},
    "short": {"thinking": 24, "answer": 40},
    "medium": {"thinking": 100, "answer": 40},
    "long": {"thinking": BARE_CONTEXT, "answer": 40},
}


@pytest.fixture(scope="module")
def bare(vllm_python: Path, workplace: Path) -> Iterator[Replica]:
    """vLLM with no more than a model and an adapter."""
    adapter = write_adapter(workplace / "adapter")
    options = [*BARE, "--enable-lora", "--lora-modules", f"adapter={adapter}"]
    server = vllm_server("bare", vllm_python, WEIGHTS, workplace, options)
    with stopping([server]):
        server.wait_until_ready("/health")
        yield server


def settings_for(bare: Replica) -> dict[str, Any]:
    replicas = [{"name": "bare", "url": bare.url}]
    adapted = {"family": "qwen3", "served_name": "adapter", "replicas": replicas, "tiers": TIERS}
    described = configuration(bare.url, model={"tiers": TIERS, "replicas": replicas})
    described["models"]["adapter"] = adapted
    return described


@pytest.fixture
async def running(bare: Replica) -> AsyncIterator[Running]:
    """A gateway in front of it that has remembered nothing yet."""
    async with serving(settings_for(bare)) as running:
        yield running


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("tier", "thinks"), [("short", False), ("medium", True)])
async def test_a_refused_thinking_budget_is_left_out(
    running: Running, easy: Puzzle, tier: str, thinks: bool, stream: bool
) -> None:
    """The first request that would carry a budget is answered, and so are those after it.

    A short tier does not think then, because nothing but its token limit would end the thought.
    """
    for _ in range(2):
        response = await running.chat(easy.question.text, model=f"tiny:{tier}", stream=stream, temperature=0)
        text = await response.text()
        assert (response.status, response.headers.get("x-thinkmeter-tier")) == (200, tier), text
        assert (THINK in text) is thinks
    refused = await samples(running, "thinkmeter_fields_refused_total")
    assert [value for name, value in refused.items() if "thinking_token_budget" in name] == [1.0]


async def test_a_budget_of_the_clients_own_is_refused(running: Running, bare: Replica, easy: Puzzle) -> None:
    """vLLM's refusal of what the client asked for by its own name reaches the client."""
    body = {"messages": easy.messages, "thinking_token_budget": 5}
    url = f"{bare.url}/v1/chat/completions"
    async with running.http.post(url, json={"model": "tiny"} | body) as theirs:
        assert theirs.status == 400
    response = await running.chat(easy.question.text, model="tiny:short", thinking_token_budget=5)
    assert response.status in {200, 400}, await response.text()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_lost_parser_is_named(running: Running, easy: Puzzle, stream: bool) -> None:
    """A thought in the content is recognised: a metric names the model and the replica."""
    response = await running.chat(easy.question.text, model="tiny:medium", stream=stream, temperature=0)
    assert response.status == 200, await response.text()
    lost = await samples(running, "thinkmeter_parser_lost_total")
    assert [value > 0 for name, value in lost.items() if 'model="tiny"' in name] == [True]


async def test_no_parser_is_missed_without_a_thought(running: Running, easy: Puzzle) -> None:
    """At `direct` there is no thought, so nothing is lost, and the answer is right."""
    response = await running.chat(easy.question.text, model="tiny:direct", temperature=0)
    answer = await response.json()
    assert answer["choices"][0]["message"]["content"] == easy.question.answer
    assert not any((await samples(running, "thinkmeter_parser_lost_total")).values())


@pytest.mark.parametrize("tier", [*TIERS])
@pytest.mark.parametrize("model", ["tiny", "adapter"])
async def test_a_small_context(running: Running, model: str, tier: str) -> None:
    """A prompt that leaves less room than the tier wants is answered at every tier, also by an adapter."""
    body = {"model": f"{model}:{tier}", "messages": [{"role": "user", "content": "7" * (BARE_CONTEXT - 100)}]}
    async with running.http.post(f"{running.url}/v1/chat/completions", json=body) as response:
        answer = await response.json()
    assert response.status == 200, answer
    assert answer["usage"]["total_tokens"] <= BARE_CONTEXT


def test_an_adapters_card_has_no_context(bare: Replica) -> None:
    """That is why the gateway must look at the card of its parent."""
    cards = {card["id"]: card for card in json.loads(fetch(f"{bare.url}/v1/models"))["data"]}
    assert cards["adapter"].get("max_model_len") is None
    assert cards[cards["adapter"]["parent"]]["max_model_len"] == BARE_CONTEXT


def test_probe_says_what_is_missing(bare: Replica, tmp_path: Path) -> None:
    """It fails, and names the options of vLLM that help."""
    path = tmp_path / "bare.yaml"
    path.write_text(yaml.safe_dump(settings_for(bare)))
    status, output = probe(path)
    found = results(output, "bare")
    assert status == 1, output
    assert found["thinking_token_budget 8, temperature 0"] == "refused", output
    assert (found["thinking on"], found["thought"]) == ("accepted", "in the answer"), output
    assert '--reasoning-parser qwen3 --reasoning-config \'{"reasoning_start_str": "<think>"' in output


async def samples(running: Running, name: str) -> dict[str, float]:
    """The samples of one metric, by their labels."""
    return {key: value for key, value in (await running.metrics()).items() if key.startswith(name + "{")}
