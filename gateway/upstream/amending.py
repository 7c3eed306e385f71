"""Asks a replica again, at once, without what it refuses of the gateway's own additions to a request.

A refused request was never begun, so asking again costs no tokens. It is no failure of the replica, and no
retry.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from gateway.openai_api.amendments import AS_PLANNED, Amendment
from gateway.openai_api.large_requests import LARGE_BODY
from gateway.openai_api.refusals import Refusal
from gateway.upstream.pool import Backend
from gateway.upstream.refused_fields import field_name

log = logging.getLogger("thinkmeter.upstream")

_Answer = TypeVar("_Answer")

_BUDGET_ADVICE = (
    "; to enforce thinking budgets, start it with --reasoning-parser or --reasoning-config, or else "
    "configure the model with `thinking_budget: false`"
)


class Amendable(Protocol):
    """Writes a request anew; see `gateway.routing.drafts`."""

    def amended(self, amendment: Amendment, refusal: Refusal, size: int) -> Amendment | None:
        """How to ask again after a refusal; None if nothing that the gateway added is concerned."""

    def written(self, amendment: Amendment, body: bytes) -> bytes:
        """The body with an amendment, from the body as planned."""


class AmendableRequest(Protocol):
    """The part of a request that changes when it is sent again."""

    body: bytes
    tried: list[str]
    draft: Amendable | None
    amendment: Amendment
    amended: bytes


class PartRefused(Exception):  # noqa: N818 - what happened, and no error if it is asked again
    """A replica refuses a part of a request that can be taken back."""

    def __init__(self, amendment: Amendment) -> None:
        super().__init__()
        self.amendment = amendment


def part_refused(request: AmendableRequest, refusal: Refusal | None) -> PartRefused | None:
    """The exception to raise for a refusal; None if the request cannot be asked again."""
    if request.draft is None or refusal is None:
        return None
    amendment = request.draft.amended(request.amendment, refusal, len(request.body))
    return PartRefused(amendment) if amendment else None


async def amending(
    backend: Backend, request: AmendableRequest, ask: Callable[[], Awaitable[_Answer]]
) -> _Answer:
    """Have a replica respond to a request that is amended until it takes it.

    What it accepted only without some fields is remembered, so that later requests do not ask twice.
    """
    if backend.refused or request.amendment is not AS_PLANNED:
        known = backend.refused.known(time.monotonic())
        await _write(request, Amendment(without=known) if known else AS_PLANNED)
    while True:
        tried = len(request.tried)
        try:
            answer = await ask()
        except PartRefused as refused:
            amendment = refused.amendment
        else:
            if request.amendment.lasting:
                _remember(backend, request.amendment)
            return answer
        del request.tried[tried:]  # the next attempt is the same one
        _count(backend, request.amendment, amendment)
        await _write(request, amendment)


async def _write(request: AmendableRequest, amendment: Amendment) -> None:
    if request.draft is None:
        return
    if len(request.body) > LARGE_BODY:
        body = await asyncio.to_thread(request.draft.written, amendment, request.body)
    else:
        body = request.draft.written(amendment, request.body)
    request.amendment, request.amended = amendment, body


def _count(backend: Backend, before: Amendment, after: Amendment) -> None:
    length = ["max_completion_tokens"] if after.room != before.room else []
    backend.refused.count([*length, *map(field_name, after.without - before.without)])


def _remember(backend: Backend, amendment: Amendment) -> None:
    for refused in backend.refused.remember(amendment.lasting, time.monotonic()):
        name = field_name(refused)
        advice = _BUDGET_ADVICE if name == "thinking_token_budget" else ""
        log.warning("backend %s refuses `%s`: requests go without it for now%s", backend.name, name, advice)
