"""
Asks for a small chat response every 10 ms on a kept connection, and prints how long each took, as JSON.

    python -m tests.bench.prober PORT SECONDS KEY MODEL

While a request waits, those that would have followed are not sent. Each counts as if it had been sent at its
time and answered together with the one that waits, so a stall counts for everybody that it holds up.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import math
import random
import sys
import time

from tests.fakes.light import SERIAL, SERIAL_DIGITS

EVERY_S = 0.01
PATIENCE_S = 60.0


class Prober:
    """One client."""

    def __init__(self, port: int, key: str, model: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._model = model
        self._numbers = itertools.count(random.randrange(10 ** (SERIAL_DIGITS - 1)))

    def ask(self) -> int:
        """Send one request, with a prompt of its own. Returns its status, 0 if the connection failed."""
        prompt = f"{SERIAL.decode()}{next(self._numbers):0{SERIAL_DIGITS}}: how are you?"
        body = json.dumps({"model": self._model, "messages": [{"role": "user", "content": prompt}]})
        try:
            self._connection.request("POST", "/v1/chat/completions", body, self._headers)
            response = self._connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            with contextlib.suppress(OSError):
                self._connection.close()
            return 0
        return response.status


def probe(prober: Prober, seconds: float) -> dict[str, list[float] | dict[int, int]]:
    """Waits in seconds, and how often each status came."""
    prober.ask()  # the connection and the first use of everything are not measured
    waits: list[float] = []
    statuses: dict[int, int] = {}
    due = begin = time.perf_counter()
    while due < begin + seconds:
        time.sleep(max(0.0, due - time.perf_counter()))
        status = prober.ask()
        statuses[status] = statuses.get(status, 0) + 1
        held, due = held_up(due, time.perf_counter())
        waits += held
    return {"waits": waits, "statuses": statuses}


def held_up(due: float, now: float) -> tuple[list[float], float]:
    """The waits of all requests due from `due` to `now`, and when the next one is due."""
    count = max(1, math.ceil((now - due) / EVERY_S))
    return [now - due - number * EVERY_S for number in range(count)], due + count * EVERY_S


if __name__ == "__main__":
    port, seconds, key, model = sys.argv[1:]
    print(json.dumps(probe(Prober(int(port), key, model), float(seconds))))
