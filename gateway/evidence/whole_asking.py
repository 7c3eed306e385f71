"""Asks for one whole answer of an exact length, under budgets if there are any.

Measured runs and shadow pairs send their requests through the replicas of a model as serving does, with
fail-over. But they never take a shorter answer than they ask for, since that would be one of another rung.
"""

from __future__ import annotations

from msgspec import Struct, field

from gateway.budget.ledger import Ledger
from gateway.budget.reservation import Outcome, Reservation
from gateway.budget.waiting import Turn
from gateway.errors import BackendError, BudgetUnavailable
from gateway.evidence.measuring.forcing import whole_demand
from gateway.openai_api.requests import encode
from gateway.openai_api.responses import read_usage
from gateway.openai_api.usage import TokenUsage
from gateway.routing.call import Plan
from gateway.routing.drafts import Draft
from gateway.upstream.dispatch import Upstream
from gateway.upstream.request import UpstreamRequest
from gateway.upstream.response import UpstreamResponse

_QUEUE = Turn(0.0, 0)


class WholeReply(Struct):
    """What came back."""

    body: bytes = b""
    plan: Plan | None = None
    """The plan as it was sent in the end."""
    usage: TokenUsage = field(default_factory=TokenUsage)


async def ask_whole(
    upstream: Upstream,
    plan: Plan,
    request: UpstreamRequest,
    reply: WholeReply,
    *,
    ledger: Ledger | None,
    most: int | None = None,
) -> None:
    """Send the request of a plan, and fill in the reply.

    request: its body is written here. ledger: counts the tokens under the budgets of the plan's call.
    most: bytes of a response; a longer one is an error.

    Raises: GatewayError.
    """
    limits = plan.call.limits
    if ledger is None or not limits:
        await _forward(upstream, plan, request, reply, most)
        return
    reservation = await ledger.begin(limits, whole_demand(plan), _QUEUE)
    try:
        if reservation.shortened:  # Redis is away, and the budget grants less meanwhile
            raise BudgetUnavailable("The budget cannot hold a whole answer while Redis is away")
        await _forward(upstream, plan.granted(reservation), request, reply, most)
    except BaseException as error:
        _settle(reservation, reply.usage, len(request.tried))
        ledger.end(reservation, error)
        raise
    _settle(reservation, reply.usage, len(request.tried), answered=True)
    ledger.end(reservation, None)


async def _forward(
    upstream: Upstream, plan: Plan, request: UpstreamRequest, reply: WholeReply, most: int | None
) -> None:
    request.body = request.received = encode(plan.fields())
    request.draft = draft = Draft(plan)

    async def read(response: UpstreamResponse) -> None:
        reply.body = await _whole(response, most)
        reply.plan, reply.usage = draft.plan, read_usage(reply.body) or TokenUsage()

    await upstream.forward(plan.call.pool, request, read)


async def _whole(response: UpstreamResponse, most: int | None) -> bytes:
    if response.complete:
        return response.body
    blocks, size = [], 0
    async for block in response.blocks():
        blocks.append(block)
        size += len(block)
        if most is not None and size > most:
            raise BackendError("The answer is too long", detail=f"over {most} bytes", spent=True)
    return b"".join(blocks)


def _settle(reservation: Reservation, usage: TokenUsage, attempts: int, *, answered: bool = False) -> None:
    reservation.outcome = Outcome(usage=usage, attempts=attempts, answered=answered)
