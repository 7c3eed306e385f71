"""What a replica refuses is remembered for a while, within bounds."""

from __future__ import annotations

from gateway.config.models import Replica
from gateway.upstream.pool import Backend
from gateway.upstream.refused_fields import RefusedFields

BUDGET = (("thinking_token_budget",), b"")
OPTION = (("stream_options", "include_usage"), b"true")


def test_memory_ends() -> None:
    """Ten minutes after it was noted, a field is sent again."""
    fields = RefusedFields()
    assert not fields

    assert fields.remember([BUDGET], 0) == [BUDGET]
    assert fields.remember([BUDGET, OPTION], 60) == [OPTION]

    assert fields.known(599) == {BUDGET, OPTION}
    assert fields.names(599) == ["stream_options.include_usage", "thinking_token_budget"]
    assert fields.known(600) == {OPTION}
    assert fields.known(660) == set()
    assert not fields


def test_memory_is_bounded() -> None:
    """However many words a replica refuses, few are kept."""
    fields = RefusedFields()
    fields.remember([(("reasoning_effort",), b'"%d"' % number) for number in range(1_000)], 0)

    assert len(fields.known(1)) == 64
    assert fields.remember([BUDGET], 1) == []


def test_counts_stay() -> None:
    """Counts are for a metric, so they never fall."""
    fields = RefusedFields()
    fields.remember([BUDGET], 0)
    fields.count(["thinking_token_budget"])
    fields.count(["thinking_token_budget", "min_tokens"])
    fields.forget()

    assert fields.counts == {"thinking_token_budget": 2, "min_tokens": 1}
    assert not fields


def test_a_failed_check_may_be_a_restart() -> None:
    """Only a check that passes after one that failed ends the memory."""
    backend = Backend("a", Replica(url="http://a"))
    backend.refused.remember([BUDGET], 0)
    for alive, remembered in ((True, True), (True, True), (False, True), (True, False)):
        backend.checked(alive=alive, failures=2)
        assert bool(backend.refused) == remembered
