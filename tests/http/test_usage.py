"""Token usage: the backend's count, or else the deltas that were forwarded; unknown is never zero."""

from __future__ import annotations

import itertools
import json
from typing import Any, Literal

import pytest

from gateway.openai_api.usage import TokenUsage
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.wire import ask, connection, post_recorded, wired
from tests.serving import Running, configuration, serving

Usage = Literal["details", "plain", "missing", "null", "spaced"]
STREAMS = pytest.mark.parametrize("stream", [False, True])
WORDS = "one two three"


def counts(recorded: TokenUsage) -> tuple[int | None, int | None, int | None]:
    return recorded.prompt, recorded.completion, recorded.reasoning


async def usage_of(running: Running, body: dict[str, Any], **options: Any) -> TokenUsage:
    """Send one request, and return the token usage in its record."""
    return (await post_recorded(running, body, **options))[1].usage


async def test_backends_own_count(running: Running, backend: Backend, subtests: pytest.Subtests) -> None:
    """The backend's usage is recorded, whether the client requests it or not, in compact or spaced JSON."""
    spellings: tuple[Usage, ...] = ("details", "spaced")
    for usage, stream, asks in itertools.product(spellings, (False, True), (False, True)):
        with subtests.test(usage=usage, stream=stream, asks=asks):
            backend.script(Fault(tokens=5, reasoning=4, usage=usage))
            options = {"stream_options": {"include_usage": asks}} if stream else {}
            recorded = await usage_of(running, ask(WORDS, model="tiny:short", stream=stream, **options))

            assert counts(recorded) == (3, 9, 4)
            assert (recorded.source, recorded.reasoning_estimated) == ("backend", False)
            assert recorded.finish_reason == "stop"


async def test_count_without_a_split(running: Running, backend: Backend, subtests: pytest.Subtests) -> None:
    """If the backend does not count reasoning tokens (older vLLM), they are estimated and marked as such."""
    for stream in (False, True):
        with subtests.test(stream=stream):
            backend.script(Fault(tokens=4, reasoning=12, usage="plain"))
            recorded = await usage_of(running, ask(WORDS, model="tiny:short", stream=stream))

            assert (recorded.prompt, recorded.completion, recorded.source) == (3, 16, "backend")
            assert recorded.reasoning_estimated
            assert recorded.reasoning is not None
            assert abs(recorded.reasoning - 12) <= 1


@pytest.mark.parametrize("usage", ["missing", "null"])
async def test_stream_without_a_count(running: Running, backend: Backend, usage: Usage) -> None:
    """If a stream has no usage, its deltas are counted and the prompt tokens stay unknown."""
    backend.script(Fault(tokens=5, reasoning=4, usage=usage))
    recorded = await usage_of(running, ask(WORDS, model="tiny:short", stream=True))

    assert counts(recorded) == (None, 9, 4)
    assert (recorded.source, recorded.finish_reason) == ("counted", "stop")


@pytest.mark.parametrize("usage", ["missing", "null"])
async def test_whole_response_without_a_count(running: Running, backend: Backend, usage: Usage) -> None:
    """If a whole response has no usage, its tokens are unknown, not zero."""
    backend.script(Fault(tokens=5, usage=usage))
    recorded = await usage_of(running, ask(WORDS))

    assert counts(recorded) == (None, None, None)
    assert (recorded.source, recorded.finish_reason) == ("none", "stop")
    assert 'thinkmeter_tokens_total{model="tiny",tier="direct",type="completion"}' not in (
        await running.metrics()
    )


@pytest.mark.parametrize(
    "fault",
    [
        Fault(after=7, end="cut", reasoning=4),
        Fault(after=7, end="clean", reasoning=4, half_event=True),
        Fault(after=7, end="cut", reasoning=4, glue=50),
        Fault(after=7, error="engine died", reasoning=4),
    ],
)
async def test_a_cut_stream_is_counted(running: Running, backend: Backend, fault: Fault) -> None:
    """If a stream breaks, the forwarded deltas are counted, with a separate count for reasoning."""
    backend.script(fault)
    recorded = await usage_of(running, ask(WORDS, model="tiny:short", stream=True))

    assert counts(recorded) == (None, 7, 4)
    assert recorded.source == "counted"
    metrics = await running.metrics()
    series = 'thinkmeter_tokens_total{{model="tiny",tier="short",type="{}"}}'
    assert metrics[series.format("completion")] == 7
    assert metrics[series.format("reasoning")] == 4
    assert metrics['thinkmeter_usage_total{model="tiny",source="counted"}'] == 1


async def test_running_counts_of_a_cut_stream(running: Running, backend: Backend) -> None:
    """If a stream with continuous usage breaks, the last usage is recorded, with the prompt tokens."""
    backend.script(Fault(after=7, end="cut", reasoning=4))
    options = {"include_usage": True, "continuous_usage_stats": True}
    recorded = await usage_of(running, ask(WORDS, model="tiny:short", stream=True, stream_options=options))

    assert counts(recorded) == (3, 7, 4)
    assert recorded.source == "counted"


async def test_an_abandoned_stream_is_counted(running: Running, backend: Backend) -> None:
    """If the client leaves a stream, the forwarded deltas are counted."""
    backend.script(Fault(after=3, end="stall"))
    async with connection(running) as (reader, writer):
        writer.write(wired(ask(stream=True)))
        received = b""
        while received.count(b'"content":" t') < 3:
            received += await reader.read(65_536)
    (record,) = await running.recorded(1)

    assert (record.usage.completion, record.usage.source) == (3, "counted")
    assert (await running.metrics())[
        'thinkmeter_tokens_total{model="tiny",tier="direct",type="completion"}'
    ] == 3


def whole(usage: dict[str, Any], **message: Any) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "hi"} | message,
        "finish_reason": "stop",
    }
    return {"choices": [choice], "usage": usage}


def streamed(usage: dict[str, Any], **delta: Any) -> str:
    choice = {"index": 0, "delta": {"content": "hi"} | delta, "finish_reason": "stop"}
    chunks = [{"choices": [choice]}, {"choices": [], "usage": usage}]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


async def test_zero_is_not_unknown(running: Running, backend: Backend, subtests: pytest.Subtests) -> None:
    """A count of zero is recorded, not replaced by an estimate."""
    for stream in (False, True):
        with subtests.test(stream=stream):
            usage = {
                "prompt_tokens": 0,
                "completion_tokens": 0,
                "completion_tokens_details": {"reasoning_tokens": 0},
            }
            backend.script(Fault(body=streamed(usage) if stream else whole(usage)))
            recorded = await usage_of(running, ask(stream=stream))

            assert counts(recorded) == (0, 0, 0)
            assert recorded.source == "backend"


async def test_no_reasoning_tokens_beside_reasoning_text(
    running: Running, backend: Backend, subtests: pytest.Subtests
) -> None:
    """If a response shows reasoning but counts no reasoning tokens, they are estimated."""
    for stream in (False, True):
        with subtests.test(stream=stream):
            usage = {
                "prompt_tokens": 1,
                "completion_tokens": 10,
                "completion_tokens_details": {"reasoning_tokens": 0},
            }
            make = streamed if stream else whole
            backend.script(Fault(body=make(usage, reasoning="a long thought")))
            recorded = await usage_of(running, ask(stream=stream))

            assert recorded.reasoning_estimated
            assert recorded.reasoning
            assert recorded.completion == 10


@STREAMS
async def test_cached_prompt_tokens(running: Running, backend: Backend, stream: bool) -> None:
    """Prompt tokens from the prefix cache have a separate count."""
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 8}}
    backend.script(Fault(body=streamed(usage) if stream else whole(usage)))
    recorded = await usage_of(running, ask(stream=stream))

    assert (recorded.prompt, recorded.cached) == (9, 8)
    assert (await running.metrics())['thinkmeter_tokens_total{model="tiny",tier="direct",type="cached"}'] == 8


@STREAMS
async def test_usage_on_metrics(running: Running, backend: Backend, stream: bool) -> None:
    """/metrics counts prompt, completion and reasoning tokens by model and tier."""
    backend.default = Fault(tokens=5, reasoning=4)
    for _ in range(3):
        await post_recorded(running, ask(WORDS, model="tiny:short", stream=stream))

    metrics = await running.metrics()
    labels = 'model="tiny",tier="short"'
    for kind, count in {"prompt": 9, "completion": 27, "reasoning": 12}.items():
        assert metrics[f'thinkmeter_tokens_total{{{labels},type="{kind}"}}'] == count
    assert metrics['thinkmeter_usage_total{model="tiny",source="backend"}'] == 3
    assert metrics[f"thinkmeter_completion_tokens_sum{{{labels}}}"] == 27
    assert metrics['thinkmeter_thinking_budget_total{backend="a",model="tiny",outcome="honoured"}'] == 3


async def test_several_choices(running: Running, backend: Backend, subtests: pytest.Subtests) -> None:
    """The tokens of all choices are counted."""
    for stream in (False, True):
        with subtests.test(stream=stream):
            backend.script(Fault(tokens=5))
            recorded = await usage_of(running, ask(WORDS, n=3, stream=stream))
            backend.script(Fault(after=4, end="cut"))
            cut = await usage_of(running, ask(WORDS, n=3, stream=True, user=f"after {stream}"))

            assert (recorded.prompt, recorded.completion) == (3, 15)
            assert (cut.completion, cut.source) == (4, "counted")


@STREAMS
async def test_every_choice_has_the_budget(running: Running, backend: Backend, stream: bool) -> None:
    """The thinking budget is per choice, so four choices may use four times as many tokens."""
    recorded = await usage_of(running, ask(model="tiny:medium", n=4, stream=stream))

    assert recorded.reasoning == 4 * 64
    metrics = await running.metrics()
    assert metrics['thinkmeter_thinking_budget_total{backend="a",model="tiny",outcome="honoured"}'] == 1


async def test_tool_calls_are_counted(running: Running, backend: Backend, subtests: pytest.Subtests) -> None:
    """The deltas of a tool call count as tokens, and a response with nothing else is not truncated."""
    for stream in (False, True):
        with subtests.test(stream=stream):
            backend.script(Fault(tool_call=True, tokens=3, usage="missing"))
            recorded = await usage_of(running, ask(stream=stream))

            assert (recorded.finish_reason, recorded.truncated) == ("tool_calls", False)
            assert recorded.completion == (5 if stream else None)


@STREAMS
@pytest.mark.parametrize(("reasoning", "truncated"), [(1_000, True), (40, False)])
async def test_truncated_responses(backend: Backend, stream: bool, reasoning: int, truncated: bool) -> None:
    """A response counts as truncated if thinking used all its tokens, but not if its text is cut short."""
    settings = configuration(backend.url, model={"thinking_budget": False})
    backend.script(Fault(reasoning=reasoning, tokens=1_000))
    async with serving(settings) as running:
        recorded = await usage_of(running, ask(model="tiny:short", stream=stream))
        metrics = await running.metrics()

    assert (recorded.finish_reason, recorded.truncated) == ("length", truncated)
    counted = metrics.get('thinkmeter_truncated_responses_total{model="tiny",tier="short"}')
    assert counted == (1 if truncated else None)


@STREAMS
async def test_a_budget_that_is_ignored(running: Running, backend: Backend, stream: bool) -> None:
    """/metrics shows if a backend exceeds the thinking budget that it was given."""
    usage = {
        "prompt_tokens": 1,
        "completion_tokens": 99,
        "completion_tokens_details": {"reasoning_tokens": 90},
    }
    backend.script(Fault(body=streamed(usage) if stream else whole(usage)))
    await usage_of(running, ask(model="tiny:short", stream=stream))

    metrics = await running.metrics()
    assert metrics['thinkmeter_thinking_budget_total{backend="a",model="tiny",outcome="ignored"}'] == 1


async def test_legacy_completions(running: Running, backend: Backend, subtests: pytest.Subtests) -> None:
    """The usage of legacy completions is recorded in the same way."""
    for stream in (False, True):
        with subtests.test(stream=stream):
            body = {"model": "tiny", "prompt": WORDS, "max_tokens": 6, "stream": stream}
            recorded = await usage_of(running, body, path="/v1/completions")
            backend.script(Fault(usage="missing"))
            uncounted = await usage_of(running, body, path="/v1/completions")

            assert (recorded.prompt, recorded.completion, recorded.source) == (3, 6, "backend")
            assert uncounted.completion == (6 if stream else None)


async def test_embeddings(running: Running) -> None:
    """Embeddings have prompt tokens and no tier."""
    recorded = await usage_of(running, {"model": "tiny", "input": WORDS}, path="/v1/embeddings")

    assert (recorded.prompt, recorded.completion, recorded.source) == (3, 0, "backend")
    assert (await running.metrics())['thinkmeter_tokens_total{model="tiny",tier="",type="prompt"}'] == 3
