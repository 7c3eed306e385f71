"""Counters and histograms that cost one addition per event. Prometheus reads them at a scrape.

prometheus-client takes a lock for each event and looks its labels up. Here whoever counts keeps the series,
and counts in plain numbers. All events are counted in the event loop, so no lock is needed.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Generic, Protocol, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Count:
    """One number that is counted up, or up and down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    @property
    def touched(self) -> bool:
        """Whether anything was counted."""
        return self.value != 0

    def inc(self, amount: float = 1) -> None:
        self.value += amount

    def dec(self) -> None:
        self.value -= 1


class Spread:
    """How many values lie in each bucket, and their sum."""

    __slots__ = ("bounds", "buckets", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """bounds: the largest value of each bucket, ascending. One more bucket takes what is larger."""
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.sum = 0.0

    @property
    def touched(self) -> bool:
        """Whether any value was counted."""
        return any(self.buckets)

    def observe(self, value: float) -> None:
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        """The buckets as Prometheus has them: each counts all values up to its bound."""
        names: list[str] = [floatToGoString(bound) for bound in (*self.bounds, math.inf)]  # type: ignore[no-untyped-call]
        return list(zip(names, accumulate(self.buckets), strict=True))


class _Series(Protocol):
    @property
    def touched(self) -> bool: ...


_S = TypeVar("_S", bound=_Series)


class _Labelled(Collector, Generic[_S]):
    """The series of one metric, by the values of its labels. Those that counted nothing are not shown."""

    def __init__(
        self, registry: CollectorRegistry, name: str, text: str, labels: Sequence[str], make: Callable[[], _S]
    ) -> None:
        self.name, self.text, self.label_names = name, text, tuple(labels)
        self._make = make
        self._series: dict[tuple[str | int, ...], _S] = {}
        if not labels:
            self.labels()
        registry.register(self)

    def labels(self, *values: str | int) -> _S:
        """The series with these values of the labels."""
        found = self._series.get(values)
        if found is None:  # also if a value is a number, whose series has its text
            found = self._series.setdefault(tuple(map(str, values)), self._make())
        return found

    def shown(self) -> Iterator[tuple[tuple[str, ...], _S]]:
        """The series to expose. A metric without labels always has one."""
        for values, series in list(self._series.items()):
            if series.touched or not values:
                yield tuple(map(str, values)), series


class Counts(_Labelled[Count]):
    """A counter with labels."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str, labels: Sequence[str] = ()) -> None:
        super().__init__(registry, name, text, labels, Count)

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self.name, self.text, labels=self.label_names)
        for values, count in self.shown():
            family.add_metric(values, count.value)
        yield family


class Spreads(_Labelled[Spread]):
    """A histogram with labels."""

    def __init__(
        self,
        registry: CollectorRegistry,
        name: str,
        text: str,
        bounds: tuple[float, ...],
        labels: Sequence[str] = (),
    ) -> None:
        super().__init__(registry, name, text, labels, lambda: Spread(bounds))

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self.name, self.text, labels=self.label_names)
        for values, spread in self.shown():
            family.add_metric(values, spread.cumulative(), spread.sum)
        yield family
