"""The watch for drift: what raises an alarm, what does not, and when one ends."""

from __future__ import annotations

import random
from collections.abc import Iterable

from gateway.evidence.drift.watch import PATIENCE, QUARTER, DriftFound, DriftPlace, Seen, Watch

HOUR = 3_600.0


def graded(
    share: float, number: int, *, begin: float = 0.0, seed: int = 1, tier: str = "short"
) -> Iterable[Seen]:
    """Answers that the head expects to be right with 90 %; `share` of them are. One each hour."""
    draw = random.Random(seed)
    for n in range(number):
        yield Seen(begin + n * HOUR, "m", tier, "h", False, float(draw.random() < share), 0.9)


def watched(rows: Iterable[Seen], into: Watch | None = None) -> Watch:
    watch = into or Watch(0.02)
    for row in rows:
        watch.see(row)
    return watch


def alarms(watch: Watch, now: float) -> list[DriftPlace]:
    return [found.place for found in watch.tell(now) if found.since is not None]


def only(watch: Watch, now: float) -> DriftFound:
    [found] = watch.tell(now)
    return found


def test_calibrated_answers_raise_no_alarm() -> None:
    """Answers that are right as often as the head says speak for it."""
    found = only(watched(graded(0.9, 1_000)), 1_000 * HOUR)

    assert found.since is None
    assert (found.seen, found.place) == (1_000, DriftPlace("m", "short", "h", "right"))
    assert found.evidence < 0 < found.limit


def test_fall_of_one_tier_is_an_alarm_there() -> None:
    """The other tier keeps its peace."""
    watch = watched(graded(0.9, 200))
    watched(graded(0.7, 200, begin=200 * HOUR), watch)
    watched(graded(0.9, 400, tier="long", seed=2), watch)

    assert alarms(watch, 400 * HOUR) == [DriftPlace("m", "short", "h", "right")]


def test_better_answers_than_promised_are_no_alarm() -> None:
    """Only worse ones are."""
    assert alarms(watched(graded(1.0, 600)), 600 * HOUR) == []


def test_alarm_ends_when_answers_are_good_again() -> None:
    """It stands while the fall does, and ends with evidence against a fall of five points."""
    watch = watched(graded(0.75, 300))
    fallen = alarms(watch, 300 * HOUR)
    watched(graded(0.78, 200, begin=300 * HOUR, seed=2), watch)
    still = alarms(watch, 500 * HOUR)
    watched(graded(0.92, 600, begin=500 * HOUR, seed=3), watch)

    assert len(fallen) == len(still) == 1
    assert alarms(watch, 1_100 * HOUR) == []


def test_alarm_without_new_evidence_ends() -> None:
    """A tier that is not served any more has nothing to show; so it is tried again."""
    watch = watched(graded(0.7, 300))
    end = 300 * HOUR

    assert len(alarms(watch, end + PATIENCE - HOUR)) == 1
    assert alarms(watch, end + PATIENCE + HOUR) == []
    assert only(watch, end + PATIENCE + HOUR).seen == 0


def test_replay_gives_the_same() -> None:
    """Whoever reads the same rows comes to the same alarms, looked at between or not."""
    rows = [*graded(0.75, 300), *graded(0.95, 500, begin=300 * HOUR, seed=4)]
    often, once = Watch(0.02), watched(rows)
    for row in rows:
        often.see(row)
        list(often.tell(row.at))

    assert list(often.tell(800 * HOUR)) == list(once.tell(800 * HOUR))


def test_prior_and_heads_are_apart() -> None:
    """What another head said, or the prior, does not speak for or against this one."""
    rows = graded(0.6, 200)
    others = [Seen(row.at, "m", "short", "new", row.at > HOUR, row.score, 0.5) for row in graded(0.6, 200)]

    assert {place.head for place in alarms(watched([*rows, *others]), 200 * HOUR)} == {"h"}


def used(ratio: float, number: int = 800) -> Iterable[Seen]:
    draw = random.Random(5)
    for n in range(number):
        tokens = round(1_000 * ratio * draw.lognormvariate(-0.125, 0.5))
        yield Seen(n * HOUR, "m", "short", "h", False, expected=1_000.0, tokens=tokens)


def test_tokens_both_ways() -> None:
    """Twice or half the tokens are an alarm; about as many as expected are none."""
    found = [alarms(watched(used(ratio)), 800 * HOUR) for ratio in (0.5, 1.0, 2.0)]

    assert [[place.kind for place in each] for each in found] == [["tokens"], [], ["tokens"]]


def abstaining(before: float, after: float) -> Iterable[Seen]:
    draw = random.Random(6)
    for n in range(1_500):
        share = before if n < 700 else after
        yield Seen(n * HOUR, "m", "short", "h", False, abstained=draw.random() < share)


def test_unseen_prompts_against_their_past() -> None:
    """A jump of the share is an alarm; a share that was always high is none."""
    found = [alarms(watched(abstaining(*shares)), 1_500 * HOUR) for shares in ((0.1, 0.5), (0.5, 0.5))]

    assert found == [[DriftPlace("m", "", "h", "abstained")], []]


def lost_pairs(before: float, after: float) -> Iterable[Seen]:
    draw = random.Random(7)
    for n in range(900):
        yield Seen(n * HOUR, "m", "short", "h", False, lost=draw.random() < (before if n < 300 else after))


def test_shadow_pairs_against_their_past() -> None:
    """More answers than before lose against their shadow."""
    found = [alarms(watched(lost_pairs(*shares)), 900 * HOUR) for shares in ((0.1, 0.5), (0.1, 0.1))]

    assert [[place.kind for place in each] for each in found] == [["pairs"], []]


def test_streams_are_forgotten() -> None:
    """A tier without a row for a quarter is not shown; and there are at most so many streams."""
    watch = watched(graded(0.9, 5))

    assert list(watch.tell(2 * QUARTER)) == []
    many = watched(Seen(0.0, f"m{n}", "short", "h", False, 1.0, 0.9) for n in range(2_000))
    assert sum(1 for _ in many.tell(HOUR)) == 1_024
