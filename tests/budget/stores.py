"""A window and a command that reserves in it, for tests of the store."""

from __future__ import annotations

from gateway.store.commands import ReserveCommand, window

WINDOW = window("{thinkmeter}", "b", 60, "*", 1_000)
COMMAND = ReserveCommand((WINDOW,), (0,), ((100, 40),), minimum=40)
