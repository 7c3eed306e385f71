"""Shares time fairly between clients that send ahead and those that wait for their responses. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

CallSoon = Callable[..., object]
"""Calls a function in the next turn of the event loop."""

_AT_ONCE = 4
"""Connections that go on in one turn of the event loop."""


class Turns:
    """Lets connections with more to read go on, a few in each turn of the event loop.

    Otherwise each of them would begin a request, or read many chunks, in every turn. The request of another
    client needs several turns, and would wait for all of them each time.
    """

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def wait(self, go_on: Callable[[], None], call_soon: CallSoon) -> None:
        """Call `go_on` when it is its turn. `call_soon` is that of the event loop."""
        self._waiting.append(go_on)
        self._schedule(call_soon)

    def _schedule(self, call_soon: CallSoon) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            call_soon(self._go_on, call_soon)

    def _go_on(self, call_soon: CallSoon) -> None:
        self._scheduled = False
        try:
            for _ in range(min(_AT_ONCE, len(self._waiting))):
                self._waiting.popleft()()
        finally:
            self._schedule(call_soon)
