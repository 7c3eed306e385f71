"""Which replica may get a request that was lost a moment ago."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gateway.config.models import Replica
from gateway.errors import BackendDisconnected, BackendError, BackendTimeout, NoBackend, RequestQuarantined
from gateway.upstream.pool import Backend, Pool
from gateway.upstream.quarantine import Quarantine, fingerprint_of

LOST = BackendDisconnected("m")
CRASHED = BackendError("m")
CRASHED.crashed = True
UNREACHABLE = NoBackend("m")
UNREACHABLE.reached = False


@dataclass
class Sent:
    """A request, as far as the quarantine sees it."""

    fingerprint: bytes


ONE, TWO = Sent(b"one"), Sent(b"two")


def pool(count: int = 2) -> Pool:
    members = [Backend(name, Replica(url="http://a"), healthy=True) for name in "abc"[:count]]
    return Pool("m", "m", members)


def passed(member: Backend, begun: float) -> None:
    member.checked(alive=True, failures=1, begun=begun)


def test_a_lost_request_waits_for_its_replica() -> None:
    """It goes nowhere until the replica that lost it has passed a check that began later, then only there."""
    members, quarantine = pool(), Quarantine()
    a, b = members.backends
    quarantine.note(members, ONE, a, LOST, 10)
    passed(a, 9)
    passed(b, 11)
    with pytest.raises(RequestQuarantined) as refused:
        quarantine.admit(members, ONE, 12)
    assert refused.value.retry_after == members.health.interval
    assert quarantine.admit(members, TWO, 12) is None

    passed(a, 13)
    assert quarantine.admit(members, ONE, 14) is a
    a.checked(alive=False, failures=1)
    with pytest.raises(RequestQuarantined):
        quarantine.admit(members, ONE, 15)


def test_a_request_lost_twice_waits_for_a_minute() -> None:
    """After a second loss no check helps; a minute after it the request is forgotten."""
    members, quarantine = pool(), Quarantine()
    a = members.backends[0]
    for now in (10, 20):
        quarantine.note(members, ONE, a, LOST, now)
    passed(a, 30)
    with pytest.raises(RequestQuarantined) as refused:
        quarantine.admit(members, ONE, 30)
    assert refused.value.retry_after == 50

    assert quarantine.admit(members, ONE, 80) is None
    assert not quarantine


@pytest.mark.parametrize(("later", "free"), [(0.5, True), (1.5, False)])
def test_lost_together(later: float, free: bool) -> None:
    """Of requests that one replica lost at the same moment, any may be the cause."""
    members, quarantine = pool(), Quarantine()
    a, b = members.backends
    quarantine.note(members, ONE, a, LOST, 10)
    quarantine.note(members, TWO, b, LOST, 10)
    quarantine.note(members, Sent(b"three"), a, LOST, 10 + later)
    if free:
        assert quarantine.admit(members, ONE, 12) is None
    else:
        with pytest.raises(RequestQuarantined):
            quarantine.admit(members, ONE, 12)
    with pytest.raises(RequestQuarantined):
        quarantine.admit(members, TWO, 12)

    quarantine.note(members, ONE, b, LOST, 13)  # it was there at two crashes
    with pytest.raises(RequestQuarantined):
        quarantine.admit(members, ONE, 14)


def test_copies_lost_together_are_one_loss() -> None:
    """Several clients may send the same request. One crash that ends all of them is no second one."""
    members, quarantine = pool(), Quarantine()
    a = members.backends[0]
    for now in (10, 10.1, 10.2):
        quarantine.note(members, ONE, a, LOST, now)
    passed(a, 11)
    assert quarantine.admit(members, ONE, 12) is a

    quarantine.note(members, ONE, a, LOST, 13)
    passed(a, 14)
    with pytest.raises(RequestQuarantined):
        quarantine.admit(members, ONE, 15)


def test_what_counts_as_lost() -> None:
    """A refusal is no loss, nor the end of an idle connection; with `resend_lost` nothing is remembered."""
    members, quarantine = pool(), Quarantine()
    stale = BackendDisconnected("m")
    stale.stale = True
    for failure in (NoBackend("m"), BackendError("m"), stale, KeyError("m")):
        quarantine.note(members, ONE, members.backends[0], failure, 10)
    assert not quarantine
    members.resend_lost = True
    quarantine.note(members, ONE, members.backends[0], LOST, 10)
    assert not quarantine
    members.resend_lost = False
    quarantine.note(members, ONE, members.backends[0], BackendTimeout("m"), 10)
    assert quarantine


def test_a_lone_replica_need_not_pass_a_check() -> None:
    """Its clients have no other; but a second loss is enough there too."""
    members, quarantine = pool(1), Quarantine()
    (only,) = members.backends
    quarantine.note(members, ONE, only, LOST, 10)
    assert quarantine.admit(members, ONE, 10) is only
    quarantine.note(members, ONE, only, LOST, 11)
    with pytest.raises(RequestQuarantined):
        quarantine.admit(members, ONE, 12)


def test_a_replica_may_die_of_what_it_failed_at() -> None:
    """After a 500 the request goes to the same replica only, until that has passed a later check."""
    members, quarantine = pool(), Quarantine()
    a, b = members.backends
    quarantine.note(members, ONE, a, CRASHED, 10)
    passed(b, 11)
    assert quarantine.admit(members, ONE, 12) is a
    assert quarantine.admit(members, TWO, 12) is None

    passed(a, 13)
    assert quarantine.admit(members, ONE, 14) is None
    assert not quarantine
    quarantine.note(members, ONE, b, CRASHED, 15)
    assert quarantine.admit(members, ONE, 80) is None


def test_a_replica_that_died_after_a_500_has_lost_the_request() -> None:
    """If it accepts no connection any more, the request waits until it lives again, and goes nowhere else."""
    members, quarantine = pool(), Quarantine()
    a = members.backends[0]
    quarantine.note(members, ONE, a, CRASHED, 10)
    quarantine.note(members, ONE, a, UNREACHABLE, 11)
    with pytest.raises(RequestQuarantined):
        quarantine.admit(members, ONE, 12)

    passed(a, 13)
    assert quarantine.admit(members, ONE, 14) is a


def test_memory_is_bounded() -> None:
    """A thousand losses are remembered, the latest ones."""
    members, quarantine = pool(1), Quarantine()
    for number in range(3_000):
        for failure in (LOST, CRASHED):
            quarantine.note(members, Sent(b"%d" % number), members.backends[0], failure, 10)

    assert len(quarantine._losses) == len(quarantine._suspects) == 1_024
    assert b"2999" in quarantine._losses


def test_fingerprints_differ() -> None:
    """Path, length, beginning and end make the fingerprint; short bodies count as a whole."""
    long = bytearray(3_000_000)
    bodies = [b"", b"a", b"b", b"ab", bytes(long), bytes(long) + b"x", b"x" + bytes(long)]
    paths = ("/v1/chat/completions", "/v1/completions")
    found = {fingerprint_of(path, body) for path in paths for body in bodies}

    assert len(found) == 2 * len(bodies)
    assert fingerprint_of("/", b"a") == fingerprint_of("/", bytearray(b"a"))
