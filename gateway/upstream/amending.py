"""Asks a replica again, at once, without what it refuses of the gateway's own additions to a request.

A refused request was never begun, so asking again costs no tokens. It is no failure of the replica, and no
retry.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Protocol

from gateway.openai_api.amendments import AS_PLANNED, Amendment
from gateway.openai_api.large_requests import LARGE_BODY
from gateway.openai_api.refusals import Refusal
from gateway.upstream.pool import Backend
from gateway.upstream.refused_fields import field_name

log = logging.getLogger("thinkmeter.upstream")

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


async def adapt(backend: Backend, request: AmendableRequest) -> None:
    """Write a request as a replica takes it: without what it is known to refuse, but with all else."""
    known = backend.refused.known(time.monotonic())
    await _write(request, Amendment(without=known) if known else AS_PLANNED)


async def amend(backend: Backend, request: AmendableRequest, amendment: Amendment) -> None:
    """Write a request anew for the replica that refused a part of it."""
    _count(backend, request.amendment, amendment)
    await _write(request, amendment)


def remember_refused(backend: Backend, amendment: Amendment) -> None:
    """Remember what a replica accepts requests only without, so that later ones are not sent twice."""
    for refused in backend.refused.remember(amendment.lasting, time.monotonic()):
        name = field_name(refused)
        advice = _BUDGET_ADVICE if name == "thinking_token_budget" else ""
        log.warning("backend %s refuses `%s`: requests go without it for now%s", backend.name, name, advice)


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
