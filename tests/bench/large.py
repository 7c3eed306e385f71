"""
Sends a prompt of 1 MB at a steady rate on a kept connection, for the trial `idle`.

It reads a `Job` as a line of JSON from stdin, writes a line when the first response is there, and goes on
until stdin closes. Then it prints how long each response took, and how often each status came, as JSON. A
request that is late because the one before it took longer follows at once. None is sent to catch up.

The bytes of the request are made once; only the number in the prompt changes. It steps back behind all other
processes of the bench, so that they do not wait for it.
"""

from __future__ import annotations

import http.client
import os
import select
import socket
import sys
import time

import msgspec

from tests.bench.jobs import Job
from tests.bench.load import requests

EVERY_S = 0.05
PATIENCE_S = 60.0
STEP_BACK = 10


class Sender:
    """One client."""

    def __init__(self, job: Job) -> None:
        self._port, self._next = job.port, requests(job)
        self._socket: socket.socket | None = None

    def ask(self) -> int:
        """Send one request. Returns its status, 0 if the connection failed."""
        try:
            if self._socket is None:
                self._socket = socket.create_connection(("127.0.0.1", self._port), PATIENCE_S)
            self._socket.sendall(self._next())
            response = http.client.HTTPResponse(self._socket)
            response.begin()
            response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            return 0
        return response.status

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


def main() -> None:
    os.nice(STEP_BACK)
    sender = Sender(msgspec.json.decode(sys.stdin.buffer.readline(), type=Job))
    sender.ask()
    print(flush=True)
    waits: list[float] = []
    statuses: dict[int, int] = {}
    due = time.perf_counter()
    while not select.select([sys.stdin], [], [], max(0.0, due - time.perf_counter()))[0]:
        begun = time.perf_counter()
        status = sender.ask()
        now = time.perf_counter()
        waits.append(now - begun)
        statuses[status] = statuses.get(status, 0) + 1
        due = max(due + EVERY_S, now)
    print(msgspec.json.encode({"waits": waits, "statuses": statuses}).decode())


if __name__ == "__main__":
    main()
