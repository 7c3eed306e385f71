"""The simplest case: a chat request reaches the backend at a tier, and its response comes back."""

from __future__ import annotations

from tests.fakes.backend import Backend
from tests.serving import Running


async def test_a_pinned_tier(running: Running, backend: Backend) -> None:
    """The tier's fields reach the backend, and the response's headers show the decision."""
    response = await running.chat("hello", model="tiny:short")

    assert response.status == 200
    assert response.headers["x-thinkmeter-tier"] == "short"
    assert response.headers["x-thinkmeter-reason"] == "pinned"
    assert response.headers["x-thinkmeter-backend"] == "a"
    sent = backend.requests[-1].json
    assert sent["chat_template_kwargs"] == {"enable_thinking": True}
    assert (sent["thinking_token_budget"], sent["max_completion_tokens"]) == (16, 48)


async def test_official_client_streams(running: Running) -> None:
    """The official client reads a stream to its end."""
    async with running.client() as client:
        stream = await client.chat.completions.create(
            model="tiny:direct", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert text
