"""Why a tier was chosen, and at which price another one would be."""

from __future__ import annotations

import typing

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.console import explain as module
from gateway.console.explain import best, explain, price_ranges
from gateway.routing.decision import Decision, Reason
from gateway.routing.policy import Bound, Bounds, choose
from router_model.predictor import Prediction

NAMES = ("direct", "short", "medium", "long")

chances = st.lists(st.floats(0, 1), min_size=2, max_size=4)
lengths = st.lists(st.floats(1, 20_000), min_size=4, max_size=4)
prices = st.floats(0, 1_000)


def curves(correct: list[float], tokens: list[float]) -> tuple[dict[str, float], dict[str, float]]:
    names = NAMES[: len(correct)]
    return dict(zip(names, correct, strict=True)), dict(zip(names, sorted(tokens), strict=False))


def decision(tier: str, reason: str, price: float = 1.0, eligible: tuple[str, ...] = NAMES) -> Decision:
    """A decision over four tiers. `short` is worth most at price 1, `medium` below 0.6, `long` below 0.4."""
    correct = {"direct": 0.3, "short": 0.5, "medium": 0.56, "long": 0.64}
    tokens = {"direct": 10.0, "short": 100.0, "medium": 200.0, "long": 400.0}
    return Decision(
        *("id", "tiny", tier, typing.cast("Reason", reason), "vip", "adaptive", eligible, 0, 32, 0.5),
        *(correct, tokens, price, 1.0, {"gateway": "0"}),
    )


@given(chances, lengths, prices)
def test_ranges_agree_with_the_choice(correct: list[float], tokens: list[float], price: float) -> None:
    """At any price, the tier of its range has the same value as the tier that is chosen."""
    rights, costs = curves(correct, tokens)
    ranges = price_ranges(tuple(rights), rights, costs)
    winner = next(r.tier for r in ranges if r.high is None or price <= r.high)
    bounds = Bounds(ceiling=Bound(len(rights) - 1, "client_ceiling"))
    chosen = choose(bounds, Prediction(0.5, tuple(rights.values()), tuple(costs.values())), price).index

    def worth(tier: str) -> float:
        return rights[tier] - price * costs[tier] / 1000

    assert worth(winner) == pytest.approx(worth(NAMES[chosen]), abs=1e-9 + 1e-12 * price)


@given(chances, lengths)
def test_ranges_cover_every_price_once(correct: list[float], tokens: list[float]) -> None:
    """The ranges start at price 0, each begins where the previous one ends, and the last has no end."""
    rights, costs = curves(correct, tokens)
    ranges = price_ranges(tuple(rights), rights, costs)

    assert ranges[0].low == 0
    assert ranges[-1].high is None
    assert [r.high for r in ranges[:-1]] == [r.low for r in ranges[1:]]
    assert len({r.tier for r in ranges}) == len(ranges)


@given(chances, lengths, prices)
def test_the_next_price_buys_the_next_tier(correct: list[float], tokens: list[float], price: float) -> None:
    """Just below `next_price`, `next_tier` has the highest value, and it is expected to use more tokens."""
    rights, costs = curves(correct, tokens)
    names = tuple(rights)
    tier = best(names, rights, costs, price)
    made = Decision(
        *("id", "tiny", tier, "price", None, "adaptive", names, 0, 32, 0.5, rights, costs, price, 1.0, {})
    )
    explained = explain(made)
    assume(explained.next_price is not None)
    assert explained.next_price is not None
    assert explained.next_tier is not None
    span = next(r for r in explained.ranges if r.tier == explained.next_tier)

    assert explained.next_price <= price
    assert best(names, rights, costs, (span.low + explained.next_price) / 2) == explained.next_tier
    assert costs[explained.next_tier] >= costs[tier]


def test_next_price_is_where_two_values_meet() -> None:
    """`medium` gains 0.06 for 100 tokens, `long` 0.14 for 300: medium wins below 0.6, long below 0.4."""
    explained = explain(decision("short", "price"))

    assert (explained.next_tier, explained.next_price) == ("medium", pytest.approx(0.6))
    assert explained.longer == "medium would be chosen at a price of 0.6 or less."
    assert [r.tier for r in explained.ranges] == ["long", "medium", "short", "direct"]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (decision("long", "price", 0.0), "There is no longer tier."),
        (decision("direct", "pinned"), "By value alone, short would be chosen at this price."),
        (decision("direct", "explored"), "By value alone, short would be chosen at this price."),
        (decision("direct", "abstained"), "By value alone, short would be chosen at this price."),
        (decision("direct", "client_ceiling", eligible=("direct",)), "Without the ceiling, short"),
        (decision("direct", "budget"), "A longer tier needs room in the budget"),
        (decision("short", "price", eligible=("direct", "short")), "No price would buy a longer tier"),
    ],
    ids=["longest", "pinned", "explored", "abstained", "ceiling", "budget", "no-gain"],
)
def test_what_it_would_take(made: Decision, expected: str) -> None:
    """Each kind of decision says what it would take to get a longer tier."""
    assert explain(made).longer.startswith(expected)


def test_a_shorter_tier_is_no_longer_one() -> None:
    """A lower price that leads to a shorter tier is not offered as a way to a longer one."""
    correct = {"direct": 0.3, "short": 0.6, "medium": 0.5, "long": 0.4}
    tokens = {"direct": 10.0, "short": 200.0, "medium": 90.0, "long": 400.0}
    made = Decision(
        *("id", "tiny", "medium", "price", None, "adaptive", NAMES, 0, 32, 0.5, correct, tokens, 1.5, 1.0, {})
    )

    assert (explain(made).next_tier, best(NAMES, correct, tokens, 1.5)) == ("short", "medium")
    assert explain(made).longer.startswith("No price would buy a longer tier")


@pytest.mark.parametrize("reason", typing.get_args(Reason))
def test_every_reason_has_words(reason: str) -> None:
    """Every reason has its own sentence."""
    assert reason in module._BECAUSE
    assert "{" not in explain(decision("short", reason)).because
