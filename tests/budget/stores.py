"""A window and a request for it, to test stores with."""

from __future__ import annotations

from gateway.store import Ask
from gateway.window import window

WINDOW = window("{thinkmeter}", "b", 60, "*", 1_000)
ASK = Ask((WINDOW,), (0,), ((100,), (40,)), minimum=40)
