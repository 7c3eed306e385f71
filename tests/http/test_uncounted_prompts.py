"""A prompt that a backend refuses without having counted it, under a budget."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from tests.fakes.backend import Backend
from tests.http.test_asked_again import CAP, long, no_room, sent
from tests.http.wire import post, post_recorded
from tests.redis import used
from tests.serving import Running


@pytest.mark.parametrize("fields", [{}, {"max_tokens": 300}], ids=["", "own limit"])
async def test_prompt_that_was_not_counted_under_a_budget(
    completion: Running, backend: Backend, fields: dict[str, Any]
) -> None:
    """The bound of the prompt proves that the context leaves less than is reserved and the client allows."""
    backend.default = no_room(100, counted=False)
    answer, record = await post_recorded(completion, long(**fields))

    assert answer.status == 200
    assert (sent(backend, CAP), sent(backend, "max_tokens")) == ([288, None], [None, None])
    assert record.reservation is not None
    assert record.reservation.max_tokens == 288
    assert await used(completion) == (record.usage.completion, 0)


@pytest.mark.parametrize(
    ("room", "fields"),
    [(100, {"chat_template": "{{ raise_exception('at least 900 input tokens') }}"}), (300, {})],
    ids=["a template that says anything", "a bound that proves nothing"],
)
async def test_limit_that_must_stay_under_a_budget(
    completion: Running, backend: Backend, room: int, fields: dict[str, Any]
) -> None:
    """Where nothing proves what the context leaves, a limit is sent: half of what may be left."""
    backend.default = replace(no_room(room, counted=False), refuses=f"{CAP}>{room // 2}")
    answer = await post(completion, long(**fields))

    assert answer.status == 200
    assert sent(backend, CAP) == [288, room // 2]
