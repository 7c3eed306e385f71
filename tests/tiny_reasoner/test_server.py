"""The server's responses to the openai client, over a real port."""

from __future__ import annotations

import asyncio
from typing import Any

from examples.tiny_reasoner.task import grade, held_out_set
from tests.tiny_reasoner.asking import DIRECT, EASY, asking
from tests.tiny_reasoner.conftest import Server


async def test_an_easy_question_is_answered_without_thinking(server: Server) -> None:
    """With thinking off there is no reasoning, and the sum is right."""
    answer = await server.client.chat.completions.create(**asking(EASY, temperature=0, **DIRECT))
    assert answer.choices[0].message.content == "7"
    assert answer.choices[0].finish_reason == "stop"
    assert not answer.choices[0].message.reasoning
    assert answer.usage.completion_tokens_details.reasoning_tokens == 0
    assert answer.usage.completion_tokens == 2


async def test_thinking_helps_on_hard_questions(server: Server) -> None:
    """Of thirty hard held-out questions, long thinking gets clearly more right."""
    hard = [question for question in held_out_set(300) if question.level == "hard"][:30]

    async def right(**more: Any) -> int:
        answers = await asyncio.gather(
            *(
                server.client.chat.completions.create(**asking(question.text, temperature=0, **more))
                for question in hard
            )
        )
        return sum(
            grade(answer.choices[0].message.content or "", question.answer)
            for answer, question in zip(answers, hard, strict=True)
        )

    assert await right(thinking_token_budget=320) >= await right(**DIRECT) + 8


async def test_usage_adds_up(server: Server) -> None:
    """Reasoning tokens are part of the completion tokens, and the total is the sum."""
    answer = await server.client.chat.completions.create(
        **asking(temperature=0, thinking_token_budget=12, n=3)
    )
    usage = answer.usage
    assert len(answer.choices) == 3
    assert usage.completion_tokens_details.reasoning_tokens == 36
    assert 36 < usage.completion_tokens <= 3 * 18
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


async def test_a_stream_says_what_the_whole_answer_says(server: Server) -> None:
    """With the same seed, the deltas of every choice add up to the message of a whole response."""
    asked = asking(seed=3, n=2, thinking_token_budget=40)
    whole = await server.client.chat.completions.create(**asked)
    stream = await server.client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    said: list[dict[str, str]] = [{"reasoning": "", "content": ""} for _ in range(2)]
    ends: dict[int, str] = {}
    usage = None
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            said[choice.index]["content"] += choice.delta.content or ""
            said[choice.index]["reasoning"] += getattr(choice.delta, "reasoning", None) or ""
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
    for choice in whole.choices:
        assert said[choice.index]["content"] == choice.message.content
        assert said[choice.index]["reasoning"] == choice.message.reasoning
        assert ends[choice.index] == choice.finish_reason
    assert usage == whole.usage


async def test_a_seed_repeats_and_choices_differ(server: Server) -> None:
    """The same seed gives the same choices again; the choices of one request are different samples."""
    asked = asking(seed=1, n=8, temperature=2.0, max_tokens=40)
    first = await server.client.chat.completions.create(**asked)
    again = await server.client.chat.completions.create(**asked)
    texts = [choice.message.reasoning for choice in first.choices]
    assert texts == [choice.message.reasoning for choice in again.choices]
    assert len(set(texts)) > 1


async def test_a_seed_repeats_under_load(server: Server) -> None:
    """The same seed gives the same answer, alone and many times at once beside requests without a seed."""
    create = server.client.chat.completions.create
    asked = asking(seed=1, temperature=1.0, thinking_token_budget=60)
    alone = await create(**asked)
    others = [create(**asking(temperature=1.0, thinking_token_budget=30 + turn)) for turn in range(8)]
    again = await asyncio.gather(*(create(**asked) for _ in range(8)), *others)
    assert [answer.choices for answer in again[:8]] == [alone.choices] * 8


async def test_a_limit_is_a_limit(server: Server) -> None:
    """If the tokens run out during the thought: finish reason `length`, reasoning but no content."""
    answer = await server.client.chat.completions.create(**asking(max_tokens=10, temperature=0))
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content is None
    assert answer.choices[0].message.reasoning
    assert answer.usage.completion_tokens == 10


async def test_a_limit_beyond_what_is_left_is_cut(server: Server) -> None:
    """As with vLLM, a limit of the whole context is cut to what the prompt leaves of it."""
    longest = server.engine.longest
    asked = asking("3+4 " * ((longest - 30) // 4), max_tokens=longest, temperature=0)
    usage = (await server.client.chat.completions.create(**asked)).usage
    assert 0 < usage.completion_tokens <= longest - usage.prompt_tokens < 40


async def test_a_stop_string_ends_the_content(server: Server) -> None:
    """Content stops before a stop string; the thought may contain it."""
    whole = await server.client.chat.completions.create(**asking(EASY, temperature=0))
    assert whole.choices[0].message.content == "\n\n7"
    cut = await server.client.chat.completions.create(**asking(EASY, temperature=0, stop=["7"]))
    assert cut.choices[0].message.content == "\n\n"
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].message.reasoning == whole.choices[0].message.reasoning


async def test_sixteen_clients_at_once_get_their_own_answers(server: Server) -> None:
    """Each of many concurrent clients gets the answer to its own sum."""
    sums = [(a, b) for a in range(2, 6) for b in range(5, 9)]
    answers = await asyncio.gather(
        *(
            server.client.chat.completions.create(**asking(f"What is {a}+{b}?", temperature=0))
            for a, b in sums
        )
    )
    assert [int(answer.choices[0].message.content) for answer in answers] == [a + b for a, b in sums]


async def test_a_client_that_hangs_up_frees_the_engine(server: Server) -> None:
    """The engine stops when a client closes a stream or stops waiting for a whole response."""
    endless = asking(temperature=2.0, max_tokens=1_900, n=4)
    stream = await server.client.chat.completions.create(**endless, stream=True)
    await anext(aiter(stream))
    await stream.close()
    async with asyncio.timeout(20):
        await server.idle()
    waiting = asyncio.create_task(server.client.chat.completions.create(**endless))
    async with asyncio.timeout(20):
        while server.engine.load == (0, 0):
            await asyncio.sleep(0)
        waiting.cancel()
        await server.idle()


async def test_the_model_list_names_the_model(server: Server) -> None:
    """The list has one model, with the length of its context."""
    models = [model async for model in server.client.models.list()]
    assert [model.id for model in models] == ["tiny"]
    assert models[0].max_model_len == server.engine.longest
