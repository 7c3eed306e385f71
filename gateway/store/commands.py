"""Budget windows, and the messages that the gateway exchanges with the Lua scripts. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from msgspec import DecodeError, Struct, msgpack

BUCKETS = 60
"""Buckets per window. Tokens count for the length of the window, plus at most one bucket."""

ScriptCall = tuple[list[str], list[Any]]
"""KEYS and ARGV of one script call. ARGV is in MessagePack: Lua reads one list faster than many words."""

_encode = msgpack.Encoder().encode
_decode = msgpack.Decoder().decode


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
    """Tokens to reserve, by window and candidate (the wanted one, then ever cheaper ones)."""
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

    exchange.lua has the same fields in the same order.
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


class JournalEntry(Struct, eq=False):
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
        self.lengths: list[int] = []
        """Of every window the length of a bucket, the number of buckets, and the configured cap."""
        self._positions: dict[str, int] = {}
        for window in windows:
            self.index(window)

    def index(self, window: Window) -> int:
        """The window's position, counted from 1 as in Lua. Adds the window if it is new."""
        position = self._positions.get(window[0])
        if position is None:
            key, leases, tokens, bucket_ms = window
            position = self._positions[key] = len(self._positions) + 1
            self.keys += (key, leases)
            self.lengths += (bucket_ms, BUCKETS, tokens)
        return position


class JournalPart(NamedTuple):
    """The journal's part of a script call."""

    key: str
    """Key of the last sequence number that Redis has applied."""
    delivered: int
    """The last one that it confirmed to the gateway; if it has applied fewer, it has lost data."""
    entries: Sequence[JournalEntry]


def exchange_call(
    journal: JournalPart | None,
    commands: Sequence[tuple[str, ReserveCommand]] = (),
    *,
    caps: str,
    lease_ms: int,
    deadline: int = 0,
) -> ScriptCall:
    """KEYS and ARGV of exchange.lua: settlements, and commands with the ids of their reservations.

    caps: key of the caps set by an admin. deadline: server time in milliseconds after which the script
    reserves nothing; 0 for none.
    """
    keys = ScriptKeys(caps)
    index = keys.index
    entries = [_message(keys, entry) for entry in journal.entries] if journal else ()
    requests = [
        (
            id_,
            command.choices,
            command.minimum,
            int(command.soft),
            command.arrivals,
            [index(window) for window in command.windows],
            command.fixed,
            [amounts[0] for amounts in command.amounts],
        )
        for id_, command in commands
    ]
    confirmed = journal.delivered if journal else -1
    if journal:
        keys.keys.append(journal.key)
    cheaper = [_encode([amounts[1:] for amounts in command.amounts]) for _, command in commands]
    return keys.keys, [
        _encode((lease_ms, keys.lengths, confirmed, entries, deadline, requests)),
        *cheaper,
    ]


def renew_call(journal: JournalPart, *, lease_ms: int) -> ScriptCall:
    """KEYS and ARGV of renew.lua."""
    keys = ScriptKeys(journal.key)
    entries = [_message(keys, entry) for entry in journal.entries]
    return keys.keys, [_encode((lease_ms, keys.lengths, journal.delivered, entries))]


def _message(keys: ScriptKeys, entry: JournalEntry) -> list[int | str]:
    message: list[int | str] = [entry.sequence, entry.id]
    for window, numbers in zip(entry.windows, entry.numbers, strict=True):
        message += (keys.index(window), *numbers)
    return message


def status_call(windows: Iterable[Window], *, caps: str) -> ScriptCall:
    """KEYS and ARGV of status.lua."""
    keys = ScriptKeys(caps, windows)
    return keys.keys, [_encode((0, keys.lengths))]


def window_call(window: Window, *arguments: int, caps: str, lease_ms: int) -> ScriptCall:
    """KEYS and ARGV of top_up.lua and reset.lua."""
    keys = ScriptKeys(caps, [window])
    return keys.keys, [_encode((lease_ms, keys.lengths, *arguments))]


_PACKED = frozenset(["exchange", "renew"])
"""Scripts that reply in MessagePack."""
_NUMBERS = {"exchange": 3, "renew": 3, "top_up": 2, "reset": 2, "status": 1}
"""How many numbers a script returns first, beginning with the server's time."""
_ROWS = {"exchange": len(ReserveReply._fields), "status": len(WindowState._fields)}
"""The length of the lists that follow, if any."""


def unpacked(script: str, reply: Any) -> Any:
    """The reply of a script, read from MessagePack if that is what the script returns."""
    if script not in _PACKED or not isinstance(reply, bytes):
        return reply
    try:
        return _decode(reply)
    except DecodeError:
        return reply


def is_reply(script: str, keys: Sequence[str], reply: Any) -> bool:
    """Whether a reply has the shape that the script returns. If not, it is not our script that answered."""
    if script == "pace":
        return isinstance(reply, int)
    count = _NUMBERS[script]
    if not isinstance(reply, list) or len(reply) < count:
        return False
    if script == "status" and len(reply) - 1 != len(keys) // 2:  # two keys for each window, one for all
        return False
    length = _ROWS.get(script, -1)
    return all(isinstance(number, int) for number in reply[:count]) and all(
        isinstance(row, list) and len(row) == length for row in reply[count:]
    )
