"""A client's stop strings end the answer of a thinking model, and never its thought."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.wire import ask, asked, events, post_recorded
from tests.serving import Running, configuration, serving

THINKING = {"model": "tiny:short"}
COUNTS = {"include_usage": True, "continuous_usage_stats": True}


def texts(body: bytes, name: str = "content") -> str:
    """The text of the only choice of a stream."""
    chunks = [json.loads(one[6:]) for one in events(body) if one.startswith(b"data: {")]
    return "".join(choice["delta"].get(name) or "" for chunk in chunks for choice in chunk["choices"])


async def test_backend_does_not_see_the_strings(
    running: Running, backend: Backend, subtests: pytest.Subtests
) -> None:
    """A tier that thinks holds them back, with all fields about them but `stop` itself left alone."""
    for fields in ({"stop": "t3"}, {"stop": ["t3", "x"], "stream": True}):
        with subtests.test(fields=fields):
            _, record = await post_recorded(
                running, ask(**THINKING, include_stop_str_in_output=False, stop_token_ids=[7], **fields)
            )
            sent = asked(backend)[-1].json

            assert record.status == 200
            assert "stop" not in sent
            assert (sent["include_stop_str_in_output"], sent["stop_token_ids"]) == (False, [7])
            assert sent.get("stream_options") == (COUNTS if "stream" in fields else None)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("chat/completions", {"model": "tiny:direct", "stop": ["t3"]}),
        ("chat/completions", {"model": "tiny:short", "stop": []}),
        ("chat/completions", {"model": "tiny:short", "stop": None}),
        ("chat/completions", {"model": "tiny:short", "stop": [""]}),
        ("chat/completions", {"model": "tiny:short", "stop": 7}),
        ("completions", {"model": "tiny", "prompt": "a", "stop": "t3"}),
    ],
)
async def test_backend_gets_all_others(running: Running, backend: Backend, path: str, fields: Any) -> None:
    """Where nothing thinks, and where there is nothing to look for, the field passes as it is."""
    answer, _ = await post_recorded(running, ask() | fields, path=f"/v1/{path}")

    assert asked(backend)[-1].json["stop"] == fields["stop"]
    assert b" t3" in answer.body


async def test_whole_response(running: Running, backend: Backend) -> None:
    """The answer ends before the string. The usage is that of all that the backend has generated."""
    backend.script(Fault(tokens=9, reasoning=5))
    answer, record = await post_recorded(running, ask(**THINKING, stop=["r2", "t3"]))

    body = json.loads(answer.body)
    (choice,) = body["choices"]
    assert choice["message"]["reasoning"] == " r0 r1 r2 r3 r4"
    assert choice["message"]["content"] == " t0 t1 t2 "
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "t3")
    assert body["usage"]["completion_tokens"] == record.usage.completion == 14
    assert int(answer.headers["content-length"]) == len(answer.body)


async def test_stream(running: Running, backend: Backend) -> None:
    """The stream ends after the string in good order, and the backend is told to stop."""
    backend.script(Fault(tokens=30, reasoning=5, pace_ms=1))
    answer, record = await post_recorded(running, ask(**THINKING, stop=["r2", "t3"], stream=True))

    assert texts(answer.body, "reasoning") == " r0 r1 r2 r3 r4"
    assert texts(answer.body) == " t0 t1 t2 "
    assert b'"finish_reason":"stop","stop_reason":"t3"' in answer.body.replace(b'"token_ids":null,', b"")
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert b"usage" not in answer.body
    await backend.wait_until(lambda b: b.aborted)
    assert (record.status, record.error, record.usage.finish_reason) == (200, None, "stop")
    assert record.cancelled
    assert record.usage.completion is not None
    assert record.usage.completion >= 9


async def test_usage_of_a_stream(running: Running, backend: Backend) -> None:
    """A client that asked for usage gets what the backend had counted when the answer was complete."""
    backend.script(Fault(tokens=30, reasoning=5, end="stall", after=10))
    question = ask("a b", **THINKING, stop="t3", stream=True, stream_options={"include_usage": True})
    answer, _ = await post_recorded(running, question)

    usage = json.loads(events(answer.body)[-2][6:])
    assert usage["choices"] == []
    assert usage["usage"]["prompt_tokens"] == 2
    assert usage["usage"]["completion_tokens"] in {9, 10}
    assert usage["usage"]["completion_tokens_details"] == {"reasoning_tokens": 5}
    assert answer.body.count(b'"usage"') == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_official_client(running: Running, backend: Backend, stream: bool) -> None:
    """The official client reads several choices, with the string included."""
    backend.script(Fault(tokens=9, reasoning=5))
    extra = {"include_stop_str_in_output": True}
    async with running.client() as client:
        said = client.chat.completions.create(
            model="tiny:short", messages=ask()["messages"], n=2, stop=["t3"], stream=stream, extra_body=extra
        )  # type: ignore[call-overload]
        response = await said
        found = ["", ""]
        async for chunk in response if stream else _once(response):
            for choice in chunk.choices:
                found[choice.index] += (choice.delta if stream else choice.message).content or ""
    assert found == [" t0 t1 t2 t3"] * 2


async def _once(response: Any) -> Any:
    yield response


async def test_tier_that_always_thinks(backend: Backend) -> None:
    """A family that cannot switch thinking off by its template may think at every tier."""
    settings = configuration(backend.url, model={"family": "deepseek-r1"})
    async with serving(settings) as gateway:
        await post_recorded(gateway, ask(stop="t3"))

    assert "stop" not in asked(backend)[-1].json


@pytest.mark.parametrize("size", [300_000, 900_000])
async def test_large_responses(running: Running, backend: Backend, size: int) -> None:
    """A response that is too large to be parsed in the event loop is cut too."""
    backend.script(Fault(tokens=9, reasoning=5, pad=size))
    answer, record = await post_recorded(running, ask(**THINKING, stop="t3"))

    assert json.loads(answer.body)["choices"][0]["message"]["content"] == " t0 t1 t2 "
    assert record.usage.completion == 14


async def test_large_request(running: Running, backend: Backend) -> None:
    """The strings of a large request are remembered after its body is gone."""
    backend.script(Fault(tokens=9, reasoning=5), times=2)
    for stream in (False, True):
        answer, _ = await post_recorded(running, ask("a" * 300_000, **THINKING, stop="t3", stream=stream))

        assert "stop" not in asked(backend)[-1].json
        assert b" t4" not in answer.body
        assert b" t2" in answer.body


async def test_client_that_leaves(running: Running, backend: Backend) -> None:
    """A client that leaves while text is held back ends the stream as ever."""
    backend.script(Fault(tokens=30, reasoning=2, pace_ms=50))
    body = ask(**THINKING, stop=" t2 ", stream=True)
    async with running.http.post(f"{running.url}/v1/chat/completions", json=body) as response:
        await response.content.readuntil(b" t0")
    await backend.wait_until(lambda b: b.aborted)
    await running.recorded(1)


async def test_broken_stream(running: Running, backend: Backend) -> None:
    """A backend that breaks off before a string is an error as ever."""
    backend.script(Fault(tokens=30, reasoning=2, after=5, end="cut"))
    answer, record = await post_recorded(running, ask(**THINKING, stop="t9", stream=True))

    assert record.error is not None
    assert texts(answer.body.partition(b'data: {"error"')[0]).startswith(" t0 t1")
