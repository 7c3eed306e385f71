"""Why a tier was chosen, and at which price another one would be."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.console import explain as module
from gateway.console.explain import explain, price_ranges
from gateway.routing.bounds import Bound, Bounds
from gateway.routing.decision import Decision, Reason, Rungs
from gateway.routing.policy import choose
from router_model.allocation import value
from router_model.predictor import Prediction
from tests.making import decision

NAMES = ("direct", "short", "medium", "long")

chances = st.lists(st.floats(0, 1), min_size=2, max_size=13)
lengths = st.lists(st.floats(1, 20_000), min_size=13, max_size=13)
prices = st.floats(0, 1_000)


def made(tier: str, reason: str = "price", price: float = 1.0, **changes: Any) -> Decision:
    """A decision over four tiers. `short` is worth most at price 1, `medium` below 0.6, `long` below 0.4."""
    correct = {"direct": 0.3, "short": 0.5, "medium": 0.56, "long": 0.64}
    tokens = {"direct": 10.0, "short": 100.0, "medium": 200.0, "long": 400.0}
    return decision(tier, correct, tokens, reason=reason, rule="vip", price=price, **changes)


def chosen(correct: list[float], tokens: list[float], price: float) -> Decision:
    """The decision at a price among rungs of which only the first and the last are named tiers."""
    top = len(correct) - 1
    estimates = tuple(correct), tuple(sorted(tokens)[: len(correct)])
    rung = choose(Bounds(ceiling=Bound(top, "client_ceiling")), Prediction(0.5, *estimates), price).index
    rungs = Rungs(tuple(range(top + 1)), *estimates, named=(0, top), lowest=0, highest=top)
    ends = [dict(zip(("direct", "long"), (values[0], values[-1]), strict=True)) for values in estimates]
    named = decision("long" if rung == top else "direct", *ends)
    return replace(named, price=price, rung=rung, rungs=rungs)


@given(chances, lengths, prices)
def test_ranges_agree_with_the_choice(correct: list[float], tokens: list[float], price: float) -> None:
    """At any price, the rung of its range has the same value as the rung that is chosen."""
    found = chosen(correct, tokens, price)
    winner = next(r.rung for r in price_ranges(found) if r.high is None or price <= r.high)

    def worth(rung: int) -> float:
        return found.rungs.correct[rung] - price * found.rungs.tokens[rung] / 1000

    assert worth(winner) == pytest.approx(worth(found.rung), abs=1e-9 + 1e-12 * price)


@given(chances, lengths)
def test_ranges_cover_every_price_once(correct: list[float], tokens: list[float]) -> None:
    """The ranges start at price 0, each begins where the previous one ends, and the last has no end."""
    ranges = price_ranges(chosen(correct, tokens, 1.0))

    assert ranges[0].low == 0
    assert ranges[-1].high is None
    assert [r.high for r in ranges[:-1]] == [r.low for r in ranges[1:]]
    assert len({r.rung for r in ranges}) == len(ranges)


@given(chances, lengths, prices)
def test_the_next_price_buys_the_next_rung(correct: list[float], tokens: list[float], price: float) -> None:
    """Just below `next_price`, the next rung has the highest value, and is expected to use more tokens."""
    found = chosen(correct, tokens, price)
    explained = explain(found)
    assume(explained.next_price is not None)
    assert explained.next_price is not None
    span = next(r for r in explained.ranges if r.high == explained.next_price)
    below = (span.low + explained.next_price) / 2

    assert explained.next_price <= price
    assert (explained.next_tier, explained.next_thinking) == (span.tier, span.thinking)
    assert value_at(found, span.rung, below) == pytest.approx(
        max(value_at(found, rung, below) for rung in range(len(correct))), abs=1e-9 + 1e-12 * price
    )
    assert found.rungs.tokens[span.rung] >= found.rungs.tokens[found.rung]


def value_at(found: Decision, rung: int, price: float) -> float:
    return value(found.rungs.correct[rung], found.rungs.tokens[rung], price)


def test_next_price_is_where_two_values_meet() -> None:
    """`medium` gains 0.06 for 100 tokens, `long` 0.14 for 300: medium wins below 0.6, long below 0.4."""
    explained = explain(made("short"))

    assert (explained.next_tier, explained.next_price) == ("medium", pytest.approx(0.6))
    assert explained.longer == "medium would be chosen at a price of 0.6 or less."
    assert [r.tier for r in explained.ranges] == ["long", "medium", "short", "direct"]


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (made("long", "price", 0.0), "There is no longer tier."),
        (made("direct", "pinned"), "By value alone, short would be chosen at this price."),
        (made("direct", "explored"), "By value alone, short would be chosen at this price."),
        (made("direct", "abstained"), "By value alone, short would be chosen at this price."),
        (made("direct", "client_ceiling", eligible=("direct",)), "Without the ceiling, short"),
        (made("direct", "budget"), "A longer tier needs room in the budget"),
        (made("direct", "context"), "A longer tier needs a shorter prompt"),
        (made("short", "price", eligible=("direct", "short")), "No price would buy more thinking"),
    ],
    ids=["longest", "pinned", "explored", "abstained", "ceiling", "budget", "context", "no-gain"],
)
def test_what_it_would_take(case: Decision, expected: str) -> None:
    """Each kind of decision says what it would take to get a longer tier."""
    assert explain(case).longer.startswith(expected)


def test_a_shorter_tier_is_no_longer_one() -> None:
    """A lower price that leads to a shorter tier is not offered as a way to a longer one."""
    correct = {"direct": 0.3, "short": 0.6, "medium": 0.5, "long": 0.4}
    tokens = {"direct": 10.0, "short": 200.0, "medium": 90.0, "long": 400.0}
    explained = explain(decision("medium", correct, tokens, price=1.5))

    assert explained.next_tier == "short"
    assert explained.longer.startswith("No price would buy more thinking")


def test_rung_between_two_tiers_is_named_by_its_budget() -> None:
    """The words for a rung between two tiers give its thinking tokens."""
    explained = explain(chosen([0.1, 0.5, 0.9], [10, 20, 100], 10.0))

    assert explained.because == "direct with 1 thinking tokens is worth most at this price."
    assert explained.longer == "long would be chosen at a price of 5 or less."


@pytest.mark.parametrize("reason", typing.get_args(Reason))
def test_every_reason_has_words(reason: str) -> None:
    """Every reason has its own sentence."""
    assert reason in module._BECAUSE
    assert "{" not in explain(made("short", reason)).because
