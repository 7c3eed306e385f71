"""Records become metrics and access log lines. Labels are bounded, and no text of a prompt appears."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.models import Replica
from gateway.errors import (
    BackendTimeout,
    ClientClosed,
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    all_errors,
)
from gateway.openai_api.usage import SLACK, TokenUsage
from gateway.routing.decision import Rungs
from gateway.telemetry.access_log import access_line
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.record import Record
from gateway.upstream.pool import Backend, Pool
from tests.making import decision

DECISION = decision(
    "short",
    {"direct": 0.25, "short": 0.5},
    {"direct": 10.0, "short": 99.0},
    thinking=200,
    cap=300,
    price=0.02,
)
USAGE = TokenUsage(7, 42, 30, 5, "backend", finish_reason="stop")


def record(**changes: Any) -> Record:
    """A successful streamed chat request."""
    made = Record("r1", "/v1/chat/completions", started_at=1.5, status=200, model="tiny", stream=True)
    usual = {"decision": DECISION, "backend": "a", "attempts": 1, "usage": USAGE, "duration": 2.0}
    usual |= {"sends_thinking_budget": True}
    for name, value in (usual | {"overhead": 0.0004, "first_byte": 0.25} | changes).items():
        setattr(made, name, value)
    return made


def observed(*records: Record) -> dict[str, float]:
    """Every sample that is not zero, by its name with labels."""
    metrics = Metrics(list)
    for entry in records:
        metrics.count(entry)
    lines = (line.rpartition(" ") for line in metrics.exposition().decode().splitlines() if line[0] != "#")
    return {name.removeprefix("thinkmeter_"): float(value) for name, _, value in lines if float(value)}


PLACE = 'model="tiny",tier="short"'


@pytest.mark.parametrize(
    ("sample", "value"),
    [
        ('requests_total{model="tiny",route="/v1/chat/completions",status="200",tier="short"}', 1),
        ('decisions_total{model="tiny",reason="price",tier="short"}', 1),
        (f'tokens_total{{{PLACE},type="prompt"}}', 7),
        (f'tokens_total{{{PLACE},type="completion"}}', 42),
        (f'tokens_total{{{PLACE},type="reasoning"}}', 30),
        (f'tokens_total{{{PLACE},type="cached"}}', 5),
        ('usage_total{model="tiny",source="backend"}', 1),
        (f"completion_tokens_sum{{{PLACE}}}", 42),
        (f"time_to_first_token_seconds_sum{{{PLACE}}}", 0.25),
        ('request_duration_seconds_sum{route="/v1/chat/completions",tier="short"}', 2),
        ('overhead_seconds_sum{route="/v1/chat/completions"}', 0.0004),
        ('overhead_seconds_bucket{le="0.00025",route="/v1/chat/completions"}', None),
        ('overhead_seconds_bucket{le="0.0005",route="/v1/chat/completions"}', 1),
        ('difficulty_sum{model="tiny"}', 0.5),
        ('thinking_budget_total{backend="a",model="tiny",outcome="honoured"}', 1),
    ],
)
def test_samples_of_a_request(sample: str, value: float | None) -> None:
    """The values of a record appear in the metrics."""
    assert observed(record()).get(sample) == value


@pytest.mark.parametrize(
    ("changes", "sample"),
    [
        ({"attempts": 3}, 'upstream_retries_total{model="tiny"}'),
        ({"error": BackendTimeout("m")}, 'errors_total{code="backend_timeout"}'),
        ({"usage": TokenUsage(truncated=True)}, f"truncated_responses_total{{{PLACE}}}"),
        (
            {"cancelled": True, "error": ClientClosed("m")},
            'upstream_cancelled_total{cause="client",model="tiny"}',
        ),
        ({"cancelled": True}, 'upstream_cancelled_total{cause="gateway",model="tiny"}'),
        (
            {"cancelled": True, "stopped": True},
            'upstream_cancelled_total{cause="stop",model="tiny"}',
        ),
        ({"decision_seconds": 0.001}, "decision_seconds_count"),
        ({"usage": TokenUsage(completion=3, source="counted")}, 'usage_total{model="tiny",source="counted"}'),
    ],
)
def test_samples_of_what_went_otherwise(changes: dict[str, Any], sample: str) -> None:
    """Retries, errors, cancellations and truncated responses have their own samples, absent otherwise."""
    assert observed(record(**changes))[sample] == (2 if "attempts" in changes else 1)
    assert sample not in observed(record())


@pytest.mark.parametrize(
    ("reasoning", "choices", "source", "outcome"),
    [
        (0, 1, "backend", "honoured"),
        (200 + SLACK, 1, "backend", "honoured"),
        (201 + SLACK, 1, "backend", "ignored"),
        (3 * (200 + SLACK), 3, "backend", "honoured"),
        (None, 1, "backend", None),
        (900, 1, "counted", None),
    ],
)
def test_whether_a_budget_held(reasoning: int | None, choices: int, source: Any, outcome: str | None) -> None:
    """A budget that was sent applies to each answer. Only the backend's own count shows whether it held."""
    usage = TokenUsage(completion=900, reasoning=reasoning, source=source)
    samples = observed(record(usage=usage, choices=choices))
    found = [name for name in samples if name.startswith("thinking_budget_total")]

    unsent = observed(record(usage=usage, choices=choices, sends_thinking_budget=False))
    assert not any(name.startswith("thinking_budget_total") for name in unsent)
    assert found == (
        [f'thinking_budget_total{{backend="a",model="tiny",outcome="{outcome}"}}'] if outcome else []
    )


def test_request_that_was_refused() -> None:
    """A request refused before its model was known has empty labels and changes no metric of a backend."""
    refused = Record("r", "/v1/chat/completions", status=404)
    names = {name.partition("{")[0] for name in observed(refused)}

    assert 'requests_total{model="",route="/v1/chat/completions",status="404",tier=""}' in observed(refused)
    assert not names & {"usage_total", "decisions_total", "difficulty_count", "overhead_seconds_count"}


def test_labels_are_bounded() -> None:
    """A thousand different requests create no more series than one, because labels come from closed sets."""
    records = [record() for _ in range(1000)]
    for index, entry in enumerate(records):
        entry.request_id, entry.key = f"id-{index}", f"key-{index}"
        entry.error = BackendTimeout(f"message {index}", param=f"param {index}", detail=f"detail {index}")

    assert observed(*records).keys() == observed(record(error=BackendTimeout("m"))).keys()


def test_errors_are_labelled_by_their_codes() -> None:
    """The error counter has one label value per documented code."""
    names = observed(*(record(error=kind("m")) for kind in all_errors()))

    assert {name for name in names if name.startswith("errors_total")} == {
        f'errors_total{{code="{kind.code}"}}' for kind in all_errors()
    }


def test_state_of_backends() -> None:
    """Replicas are read at the time of a scrape, so a removed one disappears."""
    up = Backend("a", Replica(url="http://a"), healthy=True, in_flight=3)
    down = Backend("b", Replica(url="http://b"), healthy=None)
    down.breaker.opened_at = float("inf")
    members = [up, down]
    pool = Pool("tiny", "tiny", members)
    metrics = Metrics(lambda: [(pool, member) for member in members])

    lines = metrics.exposition().decode().splitlines()
    for sample in (
        'backend_up{backend="a",model="tiny"} 1.0',
        'backend_up{backend="b",model="tiny"} 0.0',
        'backend_in_flight{backend="a",model="tiny"} 3.0',
        'backend_breaker_state{backend="a",model="tiny"} 0.0',
        'backend_breaker_state{backend="b",model="tiny"} 2.0',
    ):
        assert f"thinkmeter_{sample}" in lines
    members.remove(down)
    assert 'backend="b"' not in metrics.exposition().decode()


def test_access_line() -> None:
    """A request has one line of JSON with the decision, the replica, the times and the tokens."""
    line = access_line(record())
    entry = json.loads(line)

    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert {
        "request_id": "r1",
        "status": 200,
        "duration_ms": 2000.0,
        "tier": "short",
        "reason": "price",
        "decision_id": "d1",
        "correct": DECISION.correct,
        "propensity": 1.0,
        "rung": 1,
        "rung_correct": 0.5,
        "rung_tokens": 99.0,
        "rungs": None,  # they are the tiers, whose estimates are there already
        "backend": "a",
        "overhead_ms": 0.4,
        "first_byte_ms": 250.0,
        "completion_tokens": 42,
        "usage": "backend",
        "finish_reason": "stop",
    }.items() <= entry.items()
    assert "error" not in entry


estimates = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e6)), min_size=3, max_size=32)


@given(estimates)
def test_estimates_are_rounded(rungs: list[tuple[float, float]]) -> None:
    """P(right) has four digits and tokens have one, each the closest to the estimate."""
    correct, tokens = zip(*rungs, strict=True)
    made = Rungs(tuple(range(len(rungs))), correct, tokens, (0, 1), 0, len(rungs) - 1)
    entry = json.loads(access_line(record(decision=msgspec.structs.replace(DECISION, rungs=made))))["rungs"]

    assert entry["correct"] == pytest.approx(correct, abs=0.5001e-4)
    assert entry["tokens"] == pytest.approx(tokens, abs=0.05001)
    assert all(float(f"{value:.4f}") == value for value in entry["correct"])
    assert all(float(f"{value:.1f}") == value for value in entry["tokens"])
    assert (entry["thinking"], entry["named"]) == (list(made.thinking), [0, 1])


@pytest.mark.parametrize("kind", [InvalidRequest, ContextLengthExceeded])
def test_access_line_quotes_no_request(kind: type[GatewayError]) -> None:
    """A backend's error about a request may quote it, so the line has the code and not the message."""
    entry = access_line(record(error=kind("input: {'messages': 'my diary'}", param="messages")))

    assert b"diary" not in entry
    assert json.loads(entry)["error"] == kind.code


def test_access_line_of_an_error() -> None:
    """The line for a backend's fault has its detail, which the client never sees."""
    entry = json.loads(access_line(record(error=BackendTimeout("too slow", detail="10.0.0.1"))))

    assert (entry["error"], entry["message"], entry["detail"]) == ("backend_timeout", "too slow", "10.0.0.1")


@given(st.text(), st.floats(0, 1e9), st.none() | st.integers(0, 2**53 - 1))
def test_any_record_has_a_line(finish_reason: str, seconds: float, tokens: int | None) -> None:
    """Whatever a backend reports, the record becomes one line of JSON."""
    usage = TokenUsage(
        tokens,
        tokens,
        tokens,
        tokens,
        "backend",
        finish_reason=finish_reason.encode(errors="replace").decode(),
    )
    line = access_line(record(usage=usage, duration=seconds, first_byte=seconds))

    assert line.count(b"\n") == 1
    assert json.loads(line)["completion_tokens"] == tokens
