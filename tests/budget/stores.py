"""A window and a request for it, to test stores with."""

from __future__ import annotations

from gateway.store.commands import ReserveCommand, window

WINDOW = window("{thinkmeter}", "b", 60, "*", 1_000)
COMMAND = ReserveCommand((WINDOW,), (0,), ((100,), (40,)), minimum=40)
