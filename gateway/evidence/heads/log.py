"""Which head the log of promotions puts in force. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.evidence.rows import PromotionRow


class HeadProblem(Exception):  # noqa: N818 - named after what happened
    """A head cannot be kept, promoted or rolled back; the text says why."""


def in_force(log: Iterable[PromotionRow]) -> list[str | None]:
    """The heads that decided one after the other and were not rolled back; the last one decides.

    The first is None: the head of the configuration. log: oldest first.
    """
    stack: list[str | None] = [None]
    for line in log:
        if line.action == "promote":
            stack.append(line.head)
        elif len(stack) > 1:
            stack.pop()
    return stack


def promoted(log: Sequence[PromotionRow], head: str, at: float, by: str, why: str) -> PromotionRow:
    """The line that puts a head in force. Raises: HeadProblem, if it is already."""
    if (now := in_force(log)[-1]) == head:
        raise HeadProblem(f"the head {head} decides already")
    return PromotionRow(*_place(log, at), "promote", head, now, by, why)


def rolled_back(log: Sequence[PromotionRow], at: float, by: str, why: str) -> PromotionRow:
    """The line that puts the head before in force. Raises: HeadProblem, if there was none."""
    stack = in_force(log)
    if len(stack) == 1:
        raise HeadProblem("no head is promoted, so that there is none to roll back")
    return PromotionRow(*_place(log, at), "rollback", stack[-2], stack[-1], by, why)


def follows(known: PromotionRow | None, newest: PromotionRow | None) -> bool:
    """Whether the newest line of a log can come after the one that is known.

    It cannot in a store that was restored from an older backup: a gateway that runs keeps what it knows
    until somebody adds a line.
    """
    return known is None or (newest is not None and (newest == known or newest.at > known.at))


def _place(log: Sequence[PromotionRow], at: float) -> tuple[int, float]:
    """Number and time of the next line. Times rise, also where the clocks of two machines differ."""
    if not log:
        return 1, at
    last = log[-1]
    return last.number + 1, max(at, last.at + 0.001)
