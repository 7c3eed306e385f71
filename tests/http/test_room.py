"""Prompts that fit the model fit through the gateway too, whatever the tier adds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.backend import Backend
from tests.serving import Running


@pytest.mark.parametrize(
    ("fields", "least", "cap"),
    [
        ({"min_tokens": 200, "max_tokens": 600}, 200, 200),
        ({"min_tokens": 3000}, 288, 288),  # what the longest tier may generate
        ({"min_tokens": 20}, 20, 32),
    ],
)
async def test_fewest_tokens_fit_the_cap(
    running: Running, backend: Backend, fields: dict[str, Any], least: int, cap: int
) -> None:
    """A backend refuses `min_tokens` above the cap, so the cap rises to it, or it is lowered to the cap."""
    assert (await running.chat(model="tiny:direct", **fields)).status == 200
    sent = backend.requests[-1].json
    assert (sent["min_tokens"], sent["max_completion_tokens"]) == (least, cap)


async def test_contradiction_of_the_client_is_the_backends_to_explain(running: Running) -> None:
    """A client that wants more tokens than it allows hears so, as it would without the gateway."""
    answer = await running.chat(model="tiny:direct", min_tokens=200, max_tokens=100)

    assert answer.status == 400
    assert "min_tokens must be less than or equal to max_tokens" in await answer.text()
