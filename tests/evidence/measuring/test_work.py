"""Rungs by name, and the order of the answers."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.evidence.measuring.work import RungError, answers_of, drawn, left_to_do, rungs_of
from tests.evidence.measuring.making import RUNGS, ladder, prompts


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (None, ["direct", "short", "long"]),
        ("long,direct", ["direct", "long"]),
        ("0,64, 256", ["direct", "short", "long"]),
        ("all", ["direct", "25", "40", "short", "102", "161", "long"]),
        ("102,long,102", ["102", "long"]),
    ],
)
def test_rungs(wanted: str | None, names: list[str]) -> None:
    """Rungs go by the name of their tier or by thinking tokens, and stand in the order of the ladder."""
    found = rungs_of(ladder(), wanted)

    tokens = {"direct": 0, "short": 64, "long": 256}
    assert [rung.name for rung in found] == names
    assert [rung.index for rung in found] == sorted(rung.index for rung in found)
    assert [rung.thinking for rung in found] == [tokens[n] if n in tokens else int(n) for n in names]


@pytest.mark.parametrize("wanted", ["medium", "", "short,,long", "65"])
def test_unknown_rung(wanted: str) -> None:
    """A rung that the ladder does not have is named, with those that it has."""
    with pytest.raises(RungError, match=r"there are direct, .*long"):
        rungs_of(ladder(), wanted)


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 3))
def test_order(seed: int, limit: int, samples: int) -> None:
    """Every answer once; a prompt's answers stand together; a higher limit begins with the same prompts."""
    everything = prompts(12)
    few, more = drawn(everything, seed, limit), drawn(everything[::-1], seed, limit + 1)
    keys = list(answers_of(few, RUNGS, samples, seed))

    assert more[:limit] == few
    assert Counter(keys).most_common(1)[0][1] == 1
    assert len(keys) == limit * len(RUNGS) * samples
    assert list(dict.fromkeys(key.prompt for key in keys)) == [prompt.id for prompt in few]
    assert keys == list(answers_of(few, RUNGS, samples, seed))


def test_rungs_take_turns() -> None:
    """No rung always comes first, so that answers so far hold no rung more often than another."""
    keys = list(answers_of(prompts(200), RUNGS, 1, 0))

    first = Counter(key.rung for key in keys[::2])
    assert 70 < first["direct"] < 130


def test_what_is_left() -> None:
    """What has an answer is not asked for again."""
    keys = list(answers_of(prompts(3), RUNGS, 1, 0))

    assert left_to_do(iter(keys), set(keys[:4])) == keys[4:]
