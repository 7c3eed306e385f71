"""The errors of feedback about answers."""

from __future__ import annotations

import logging

from gateway.errors import GatewayError, RequestError


class EvidenceOff(RequestError):
    """No store of evidence is configured."""

    status = 404
    code = "evidence_off"


class DecisionNotFound(RequestError):
    """No such decision is kept, or another key made its request."""

    status = 404
    code = "decision_not_found"


class FeedbackContradicts(RequestError):
    """The same source has said something else about the answer."""

    status = 409
    code = "feedback_contradicts"


class FeedbackUnavailable(GatewayError):
    """The store of evidence cannot be reached, or takes nothing more for now."""

    status = 503
    code = "evidence_unavailable"
    level = logging.WARNING


class HeadRefused(RequestError):
    """A head cannot be promoted or rolled back; the message says why."""

    status = 409
    code = "head_refused"
