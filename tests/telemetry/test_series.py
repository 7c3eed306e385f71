"""Plain counters and histograms are exposed as those of prometheus-client are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest

from gateway.telemetry.series import Counts, Spreads

BOUNDS = (0.0001, 0.25, 1, 16, 262144)
names = st.sampled_from(["a", "b", 'q"uo\\te\n'])
amounts = st.sampled_from(BOUNDS) | st.integers(1, 10**9) | st.floats(1e-6, 1e6)


def samples(registry: CollectorRegistry) -> set[str]:
    """The lines of the exposition, without the time at which prometheus-client created a series."""
    lines = generate_latest(registry).decode().splitlines()
    return {line for line in lines if "_created" not in line}


@given(st.lists(st.tuples(names, names, amounts), max_size=30))
def test_same_as_prometheus_client(events: list[tuple[str, str, float]]) -> None:
    """Whatever was counted, names, types, labels, buckets and values are the same."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    count, spread = Counts(ours, "c", "Text.", ["x", "y"]), Spreads(ours, "h", "Text.", BOUNDS, ["x"])
    counter = Counter("c", "Text.", ["x", "y"], registry=theirs)
    histogram = Histogram("h", "Text.", ["x"], buckets=BOUNDS, registry=theirs)
    for x, y, amount in events:
        count.labels(x, y).inc(amount)
        counter.labels(x, y).inc(amount)
        spread.labels(x).observe(amount)
        histogram.labels(x).observe(amount)

    assert samples(ours) == samples(theirs)


def test_without_labels_there_is_always_a_series() -> None:
    """As in prometheus-client, a metric without labels starts at 0, one with labels without any series."""
    registry = CollectorRegistry()
    Counts(registry, "plain", "Text.")
    Counts(registry, "labelled", "Text.", ["x"]).labels("a")

    assert registry.get_sample_value("plain_total") == 0
    assert registry.get_sample_value("labelled_total", {"x": "a"}) is None


def test_number_as_label_is_its_text() -> None:
    """A status given as a number counts in the series of its text."""
    registry = CollectorRegistry()
    counts = Counts(registry, "c", "Text.", ["status"])
    for status in (200, "200", 200):
        counts.labels(status).inc()

    assert registry.get_sample_value("c_total", {"status": "200"}) == 3
