"""The metrics of several workers become those of one gateway."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.evidence_metrics import EvidenceState
from gateway.telemetry.merging import merge_expositions, totals_of
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.record import Record
from tests.telemetry.test_metrics import record


def counted(*records: Record) -> Metrics:
    metrics = Metrics(list)
    for each in records:
        metrics.count(each)
    return metrics


def test_store_of_several_workers() -> None:
    """Rows that wait are added. One worker that does not reach the store is enough for it to be down."""
    texts = []
    for up, waiting in ((True, 3), (False, 100), (None, 0)):
        metrics = Metrics(list)
        state = EvidenceState(up, waiting, {"decisions": 7}, size=500)
        metrics.evidence.state = lambda state=state: state  # type: ignore[misc]
        texts.append(metrics.exposition())

    found = {name: value for (name, _), value in samples(merge_expositions(texts)).items()}

    assert found["thinkmeter_evidence_waiting"] == 103
    assert found["thinkmeter_evidence_store_up"] == 0
    assert found["thinkmeter_evidence_rows_total"] == 21
    assert found["thinkmeter_evidence_store_bytes"] == 500


def samples(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample as Prometheus reads it."""
    families = text_string_to_metric_families(text.decode())  # type: ignore[no-untyped-call]
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


made = st.lists(
    st.builds(
        record,
        duration=st.sampled_from([0.01, 0.5, 3.0]),
        status=st.sampled_from([200, 500]),
        model=st.sampled_from(["tiny", 'a "quoted" name', "two words"]),
    ),
    max_size=8,
)


@given(st.lists(made, min_size=1, max_size=4))
def test_same_as_one_worker_with_all_requests(workers: list[list[Record]]) -> None:
    """Whoever counted which request, counters and histograms are the same."""
    merged = merge_expositions([counted(*each).exposition() for each in workers])
    alone = counted(*(each for worker in workers for each in worker)).exposition()

    found, expected = samples(totals_of(merged)), samples(totals_of(alone))
    for name in [name for name in expected if name[0].startswith("process_")]:
        del expected[name], found[name]
    assert found == pytest.approx(expected)


def test_one_worker_stays_as_it_is() -> None:
    """With nobody to merge, every line that Prometheus reads is the same."""
    text = counted(record()).exposition()
    found, expected = samples(merge_expositions([text, b""])), samples(text)

    assert found == pytest.approx(expected, nan_ok=True)
    heads = [line for line in text.splitlines() if line.startswith(b"#")]
    assert [line for line in merge_expositions([text]).splitlines() if line.startswith(b"#")] == heads


@pytest.mark.parametrize(
    ("name", "values", "merged"),
    [
        ("thinkmeter_requests_in_flight", (2, 3), 5),
        ("process_resident_memory_bytes", (1e9, 2e9), 3e9),
        ("thinkmeter_backend_up", (1, 0), 0),
        ("thinkmeter_backend_breaker_state", (0, 2), 2),
        ("thinkmeter_redis_up", (math.nan, 1), 1),
        ("thinkmeter_redis_up", (math.nan, math.nan), math.nan),
        ("thinkmeter_budget_tokens", (5, 9), 5),
        ("process_start_time_seconds", (20, 10), 10),
        ("thinkmeter_price", (math.inf, 1), math.inf),
    ],
)
def test_gauges(name: str, values: tuple[float, float], merged: float) -> None:
    """What each worker has is summed, a fault counts wherever it is seen, a budget as it was read last."""
    texts = [f"# HELP {name} Text.\n# TYPE {name} gauge\n{name} {value}\n".encode() for value in values]

    assert samples(merge_expositions(texts)) == pytest.approx({(name, frozenset()): merged}, nan_ok=True)


def test_what_a_dead_worker_leaves() -> None:
    """Its counters and histograms stay, its gauges go."""
    text = counted(record()).exposition()
    left = totals_of(text)

    assert b"thinkmeter_requests_total{" in left
    assert b"thinkmeter_overhead_seconds_bucket{" in left
    assert b"requests_in_flight" not in left
    assert totals_of(b"") == b""
