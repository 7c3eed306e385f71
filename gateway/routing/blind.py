"""What a stream may spend without showing it. No I/O."""

from __future__ import annotations

import math
from typing import NamedTuple

_ABORT_SECONDS = 0.5  # time until a backend has stopped after its client has left, on a busy machine


class Blind(NamedTuple):
    """Completion tokens of a stream that its client can keep out of sight."""

    reasoning: int = 0
    """Reasoning tokens that are not sent."""
    held: int = 0
    """Tokens that are generated after the last one that passed, whose text is held back or comes too late."""
    pace: int = 0
    """Tokens in a second that may be generated while nothing passes."""
    silent: bool = False
    """Nothing needs to pass before the answer is complete."""

    def unseen(self, silence: float, rate: float) -> int:
        """Tokens that may have been generated after the last ones that passed, until the backend stops.

        silence: seconds since those passed. rate: tokens that passed in a second, over all choices.
        """
        return self.held + math.ceil(max(self.pace, rate) * silence + rate * _ABORT_SECONDS)
