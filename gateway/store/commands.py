"""Budget windows, and the messages that the gateway exchanges with the Lua scripts. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

BUCKETS = 60
"""Buckets per window. Tokens count for the length of the window, plus at most one bucket."""

ScriptCall = tuple[list[str], list[Any]]
"""KEYS and ARGV of one script call."""


class Window(NamedTuple):
    """One window of one holder of a budget."""

    key: str
    """Redis key of the hash with its state."""
    leases: str
    """Redis key of the sorted set with the leases of its reservations."""
    tokens: int
    """Cap according to the configuration."""
    bucket_ms: int
    """Length of a bucket in milliseconds."""


def window(prefix: str, budget: str, seconds: float, holder: str, tokens: int) -> Window:
    """The window of one holder. If its length is changed, it is another window, with another key."""
    bucket_ms = max(-(-round(seconds * 1000) // BUCKETS), 1)
    # Of all names, only those of models have colons. None has a `%`.
    name = f"{prefix}:{budget}:{seconds:.15g}:{holder.replace(':', '%3A')}"
    return Window(name, f"{name}:leases", tokens, bucket_ms)


class ReserveCommand(NamedTuple):
    """A request for tokens in one or more windows.

    The script reserves the first candidate that fits into all windows. If none fits, it cuts the last
    candidate to as many completion tokens per choice as fit, but not below `minimum`.
    """

    windows: tuple[Window, ...]
    fixed: tuple[int, ...]
    """Tokens of the prompt by window; 0 if its budget does not count prompts."""
    amounts: tuple[tuple[int, ...], ...]
    """Tokens to reserve, by candidate (the wanted one, then ever cheaper ones) and window."""
    choices: int = 1
    """Completions that the request asks for."""
    minimum: int = 1
    """Completion tokens per choice below which the last candidate is not cut."""
    soft: bool = True
    """Lower `minimum` to what the empty window can hold, if that is less."""
    arrivals: int = 1
    """How much to add to the count of requests: 0 if a queued request tries again."""


class ReserveReply(NamedTuple):
    """The decision about a `ReserveCommand`, and the numbers behind it. Times in milliseconds.

    reserve.lua has the same fields in the same order.
    """

    candidate: int
    """The candidate that was reserved, counted from 1; 0 if the request was refused."""
    clamp: int
    """Completion tokens per choice, if the last candidate was cut; else 0."""
    tightest: int
    """The window with the least room left after this request, counted from 1."""
    room: int
    """Tokens left in the tightest window."""
    reset: int
    """Time until nothing that is settled in the tightest window counts any more."""
    cap: int
    """Cap of the tightest window."""
    blocker: int
    """The window that lacked the most room for the wanted candidate, counted from 1; 0 if none did.

    If the request was refused: the window that makes it wait longest.
    """
    wait: int
    """Time until a refused request may fit; -1 if it never will."""
    only_running: int
    """1 if only the reservations of running requests keep a refused request from fitting; else 0."""
    blocker_settled: int
    """Settled tokens of the blocker."""
    blocker_reserved: int
    """Reserved tokens of the blocker, before this request."""
    blocker_cap: int
    """Cap of the blocker."""
    rooms: Sequence[int]
    """Tokens left in every window before this request; negative if it is over its cap."""


class WindowState(NamedTuple):
    """The state of one window. status.lua has the same fields in the same order."""

    cap: int
    """Tokens allowed: the number set by an admin, else the configured one; plus a top-up."""
    settled: int
    """Tokens spent by finished requests that still count."""
    reserved: int
    """Tokens reserved for running requests."""
    stale: int
    """The part of `reserved` whose leases have expired, as far as status.lua looks at them."""
    entries: int
    """Reservations, including expired ones that the window still remembers."""
    reset: int
    """Milliseconds until nothing that is settled counts any more."""
    arrivals: int
    """Requests since the window was first used."""
    limited: int
    """The part of `arrivals` that was shortened or refused because of this window."""
    spent: int
    """Tokens settled since the window was first used."""
    expected: int
    """Tokens that the head predicted for the same completions."""
    memory: bytes
    """What the price controller remembers; empty if it has not run yet."""


@dataclass(slots=True, eq=False)
class JournalEntry:
    """One settlement or renewal on its way to Redis."""

    script: Literal["settle", "renew"]
    id: str
    """Id of the reservation."""
    windows: tuple[Window, ...]
    numbers: Sequence[tuple[int, int]]
    """By window. To settle: (tokens spent, expected). To renew: (tokens reserved, spent so far or -1)."""
    sequence: int = 0
    """Position in the journal of this gateway, from 1. The scripts skip what they have applied before."""


class ScriptKeys:
    """The keys of one script call. Each window appears once; the arguments refer to it by its position."""

    def __init__(self, first: str, windows: Iterable[Window] = ()) -> None:
        """first: KEYS[1], which is no window."""
        self.keys = [first]
        self.caps: list[int] = []
        self._buckets: list[int] = []
        self._positions: dict[str, int] = {}
        for window in windows:
            self.index(window)

    def index(self, window: Window) -> int:
        """The window's position, counted from 1 as in Lua. Adds the window if it is new."""
        key, leases, tokens, bucket_ms = window
        position = self._positions.get(key)
        if position is None:
            position = self._positions[key] = len(self._positions) + 1
            self.keys += (key, leases)
            self.caps.append(tokens)
            self._buckets += (bucket_ms, BUCKETS)
        return position

    def lengths(self) -> list[int]:
        """The number of windows, then the length of a bucket and the number of buckets of each."""
        return [len(self._positions), *self._buckets]


def reserve_call(
    commands: Sequence[ReserveCommand], ids: Sequence[str], *, caps: str, lease_ms: int, deadline: int
) -> ScriptCall:
    """KEYS and ARGV of reserve.lua.

    caps: key of the caps set by an admin. deadline: server time in milliseconds after which the script
    reserves nothing; 0 for none.
    """
    keys = ScriptKeys(caps)
    body: list[Any] = [len(commands)]
    for command, id_ in zip(commands, ids, strict=True):
        body += (id_, command.choices, command.minimum, int(command.soft), command.arrivals)
        body += (len(command.amounts), len(command.windows))
        for window, fixed in zip(command.windows, command.fixed, strict=True):
            body += (keys.index(window), fixed)
        for amounts in command.amounts:
            body += amounts
    return keys.keys, [lease_ms, deadline, *keys.lengths(), *keys.caps, *body]


def journal_call(
    entries: Sequence[JournalEntry], *, journal: str, delivered: int, lease_ms: int
) -> ScriptCall:
    """KEYS and ARGV of settle.lua or renew.lua.

    journal: key of the last sequence number that Redis has applied. delivered: the last one that it confirmed
    to the gateway; if it has applied fewer, it has lost data.
    """
    keys = ScriptKeys(journal)
    body: list[Any] = [len(entries)]
    for entry in entries:
        body += (entry.sequence, entry.id, len(entry.windows))
        for window, numbers in zip(entry.windows, entry.numbers, strict=True):
            body += (keys.index(window), *numbers)
    return keys.keys, [delivered, lease_ms, *keys.lengths(), *body]


def status_call(windows: Iterable[Window], *, caps: str) -> ScriptCall:
    """KEYS and ARGV of status.lua."""
    keys = ScriptKeys(caps, windows)
    return keys.keys, [*keys.lengths(), *keys.caps]


def window_call(window: Window, *arguments: int, caps: str, lease_ms: int) -> ScriptCall:
    """KEYS and ARGV of top_up.lua and reset.lua."""
    keys = ScriptKeys(caps, [window])
    return keys.keys, [lease_ms, *keys.lengths(), *arguments]


_ROWS = {"reserve": len(ReserveReply._fields), "status": len(WindowState._fields)}
"""Scripts that return the server's time and lists, and the length of these."""
_NUMBERS = {"settle": 3, "renew": 3, "top_up": 2, "reset": 2}
"""Scripts that return the server's time and other numbers, and how many in all."""


def is_reply(script: str, keys: Sequence[str], reply: Any) -> bool:
    """Whether a reply has the shape that the script returns. If not, it is not our script that answered."""
    if script == "pace":
        return isinstance(reply, int)
    if not isinstance(reply, list) or not reply or not isinstance(reply[0], int):
        return False
    if script in _NUMBERS:
        return len(reply) == _NUMBERS[script] and all(isinstance(number, int) for number in reply)
    if script == "status" and len(reply) - 1 != len(keys) // 2:  # two keys for each window, one for all
        return False
    return all(isinstance(row, list) and len(row) == _ROWS[script] for row in reply[1:])
