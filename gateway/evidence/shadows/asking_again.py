"""Sends a drawn request again at another rung, and makes the row of the pair."""

from __future__ import annotations

import secrets
import time

from msgspec import Struct
from msgspec.structs import replace

from gateway.budget.ledger import Ledger
from gateway.budget.limits import Limit
from gateway.config.evidence import PREVIOUS_HEAD, ShadowSettings
from gateway.errors import BackendError
from gateway.evidence.grading.grade import ModelAnswer
from gateway.evidence.measuring.forcing import planned_at
from gateway.evidence.quality_promise.pairs import asked_instead
from gateway.evidence.rows import ShadowRow
from gateway.evidence.shadows.comparing import AnswerPair, ComparedPair, Comparing
from gateway.evidence.shadows.drawing import shadow_rung
from gateway.evidence.whole_asking import WholeReply, ask_whole
from gateway.http.headers import Headers
from gateway.openai_api.heard_answers import MOST_HEARD, HeardAnswer
from gateway.openai_api.requests import Fields, Request
from gateway.openai_api.usage import TokenUsage
from gateway.routing.call import Call, Plan
from gateway.routing.decision import Decision
from gateway.snapshot import Snapshot
from gateway.upstream.dispatch import Upstream
from gateway.upstream.embedding import Embeddings
from gateway.upstream.prompt_counts import PromptCounts
from gateway.upstream.request import UpstreamRequest

_NOT_ASKED = frozenset({"stream", "stream_options", "stream_interval"})
_TOOLS = "an answer calls tools, which are not compared"


class ServedRequest(Struct, frozen=True):
    """A request that was answered, and the answer that its client got."""

    settings: ShadowSettings
    snapshot: Snapshot
    call: Call
    headers: Headers
    """Those of the client that the backend gets."""
    client: str
    decision: Decision
    heard: HeardAnswer
    usage: TokenUsage


class AskingAgain:
    """Asks again, through the same replicas, under the shadow budget."""

    def __init__(self, upstream: Upstream, ledger: Ledger) -> None:
        self._upstream, self._ledger = upstream, ledger
        self._embeddings = Embeddings(upstream)
        self._counts = PromptCounts(upstream)

    async def plan(self, served: ServedRequest, limit: Limit) -> Plan | None:
        """How the request is asked again; None if it would get the rung, or the length, that it has got."""
        snapshot, settings = served.snapshot, served.settings
        previous = snapshot.previous_head
        if settings.against == PREVIOUS_HEAD and previous is not None:
            embedder = previous.embedder
            if embedder is not None:
                await self._embeddings.prefetch(
                    embedder, snapshot.settings.encoder, served.call.request.prompt
                )
        predictor = previous.predictor if previous else None
        index = shadow_rung(settings, served.call, served.decision, predictor)
        quality = snapshot.settings.quality
        if index is None and quality is not None:
            rungs = served.decision.rungs
            against = served.call.target.ladder.index(quality.against)
            index = asked_instead(served.decision, min(max(against, rungs.lowest), rungs.highest))
        if index is None:
            return None
        call = replace(served.call, request=_whole(served.call), limits=(limit,))
        plan = planned_at(call, index, snapshot.router.predictor)
        if not plan.fits:
            plan = plan.beside(await self._counts.of(call.pool, len(call.body), plan.count_request))
        if plan.decision is None or plan.decision.thinking == served.decision.thinking:
            return None  # a limit of the client, or the context, leaves no more
        return plan

    async def ask(self, served: ServedRequest, plan: Plan, reply: WholeReply) -> None:
        """Ask again. Raises: GatewayError."""
        headers = [*served.headers, (b"X-Request-Id", f"shadow-{served.decision.id}".encode())]
        request = UpstreamRequest(
            plan.call.endpoint.path, b"", headers, client=served.client, whole_bytes=MOST_HEARD
        )
        await ask_whole(self._upstream, plan, request, reply, ledger=self._ledger, most=MOST_HEARD)

    async def pair(
        self, served: ServedRequest, plan: Plan, comparing: Comparing, reply: WholeReply
    ) -> ShadowRow:
        """Compare the answer with the client's. Raises: BackendError."""
        sent = (reply.plan or plan).decision
        heard = HeardAnswer()
        heard.whole(reply.body)
        text, own = heard.text(), served.heard.text()
        if sent is None or text is None or own is None:
            raise BackendError("An answer cannot be compared", detail="no text, or too long")
        found = ComparedPair(None, None, note=_TOOLS)
        if not (heard.calls_tools or served.heard.calls_tools):
            asked = served.call.request
            found = await comparing.compare(
                AnswerPair(
                    sent.model,
                    asked.prompt,
                    asked.conversation,
                    ModelAnswer(own, served.usage.finish_reason == "length"),
                    ModelAnswer(text, reply.usage.finish_reason == "length"),
                    sent.rung > served.decision.rung,
                )
            )
        return _row(served, sent, reply.usage, found)


def _whole(call: Call) -> Request:
    """The request, for an answer that is not streamed."""
    fields: Fields = {name: value for name, value in call.request.fields.items() if name not in _NOT_ASKED}
    return replace(call.request, fields=fields, stream=False, wants_usage=False, wants_counts=False)


def _row(served: ServedRequest, sent: Decision, usage: TokenUsage, found: ComparedPair) -> ShadowRow:
    decision = served.decision
    return ShadowRow(
        id=secrets.token_hex(12),
        decision=decision.id,
        at=time.time(),
        model=decision.model,
        head=decision.versions["head"],
        served_rung=decision.rung,
        shadow_rung=sent.rung,
        served_thinking=decision.thinking,
        shadow_thinking=sent.thinking,
        served_tokens=served.usage.completion,
        shadow_tokens=usage.completion,
        grader=served.settings.grade,
        served_score=found.served,
        shadow_score=found.shadow,
        flipped=found.flipped,
        note=found.note,
    )
