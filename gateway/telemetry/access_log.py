"""The access log: one JSON line per request, without any text of the prompt or the answer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from struct import Struct

import numpy as np
import orjson

from gateway.errors import GatewayError, InvalidApiKey, InvalidRequest
from gateway.routing.decision import Rungs
from gateway.telemetry.record import Record

audit = logging.getLogger("thinkmeter.audit")
"""Who changed a budget or opened the console, on standard error, also without the access log."""

_PROBES = {"/healthz", "/readyz", "/health", "/ping", "/metrics"}


def access_line(record: Record) -> bytes:
    """The JSON line for a request."""
    decision, usage, error = record.decision, record.usage, record.error
    entry: dict[str, object] = {
        "time": int(record.started_at * 1000 + 0.5) / 1000,
        "request_id": record.request_id,
        "route": record.route,
        "status": record.status,
        "peer": record.peer,
        "key": record.key,
        "model": record.model,
        "stream": record.stream,
        "duration_ms": _milliseconds(record.duration, 100),
    }
    if decision:
        entry |= {
            "decision_id": decision.id,
            "tier": decision.tier,
            "requested": decision.requested,
            "reason": decision.reason,
            "arm": decision.arm,
            "rule": decision.rule,
            "difficulty": decision.difficulty,
            "correct": decision.correct,
            "tokens": decision.tokens,
            "price": decision.price,
            "propensity": decision.propensity,
            "eligible": decision.eligible,
            "thinking": decision.thinking,
            "budget_sent": record.sends_thinking_budget and decision.thinking > 0,
            "cap": decision.cap,
            "rung": decision.rung,
            "rung_correct": decision.rung_correct,
            "rung_tokens": decision.rung_tokens,
            "wanted": decision.wanted,
            "wanted_rung": decision.wanted_rung,
            "rungs": _rounded(decision.rungs),
            "versions": decision.versions,
        }
    if record.shadow:
        entry["shadow"] = True
    if record.backend:
        entry |= {
            "backend": record.backend,
            "attempts": record.attempts,
            "overhead_ms": _milliseconds(record.overhead, 1000),
            "first_byte_ms": _milliseconds(record.first_byte, 100),
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "reasoning_tokens": usage.reasoning,
            "usage": usage.source,
            "finish_reason": usage.finish_reason,
            "truncated": usage.truncated,
            "cancelled": record.cancelled,
        }
    if record.change:
        entry["change"] = record.change
    if error:
        entry |= _error_fields(error)
    return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)


def _milliseconds(seconds: float | None, parts: int) -> float | None:
    """A duration in milliseconds, rounded to so many parts of one."""
    return None if seconds is None else int(seconds * 1000 * parts + 0.5) / parts


def _error_fields(error: GatewayError) -> dict[str, object]:
    # A message about an invalid request is left out, because it may quote the prompt. vLLM repeats the
    # whole input, for example: "1 validation error: … input: {'messages': 'the prompt'}".
    quotes = isinstance(error, InvalidRequest)
    message = None if quotes else error.message
    tried = {"tried_key": error.tried} if isinstance(error, InvalidApiKey) and error.tried else {}
    return {"error": error.code, "message": message, "detail": error.detail, **tried}


def _rounded(rungs: Rungs) -> dict[str, object] | None:
    """The estimates of all rungs in a third of the bytes: P(right) to 0.0001, tokens to 0.1.

    None if the rungs are the named tiers, whose estimates the line has already.
    """
    if len(rungs.named) == len(rungs.thinking):
        return None
    count = len(rungs.thinking)
    estimates = _rounding(count).of(rungs.correct, rungs.tokens)
    return {
        "thinking": rungs.thinking,
        "correct": estimates[:count],
        "tokens": estimates[count:],
        "named": rungs.named,
        "lowest": rungs.lowest,
        "highest": rungs.highest,
    }


class _Rounding:
    """Rounds the estimates of so many rungs together, in one array that is used again and again."""

    def __init__(self, count: int) -> None:
        self._numbers = np.empty(2 * count)
        self._memory = self._numbers.data
        self._scale = np.repeat([10_000.0, 10.0], count)
        self._fill = Struct(f"{2 * count}d").pack_into

    def of(self, correct: tuple[float, ...], tokens: tuple[float, ...]) -> list[float]:
        """P(right) to 0.0001, then tokens to 0.1."""
        numbers, scale = self._numbers, self._scale
        self._fill(self._memory, 0, *correct, *tokens)
        np.multiply(numbers, scale, numbers)
        np.rint(numbers, numbers)
        np.divide(numbers, scale, numbers)
        rounded: list[float] = numbers.tolist()
        return rounded


_rounding = lru_cache(maxsize=64)(_Rounding)


class AccessLog:
    """Writes the line of each request. Successful probes are left out.

    Load balancers, orchestrators and Prometheus send several probes per second.
    """

    def __init__(self, put: Callable[[bytes], None]) -> None:
        """put: takes a line and never waits."""
        self._put = put

    def write(self, record: Record) -> None:
        if record.route in _PROBES and record.status == 200:
            return
        self._put(access_line(record))
