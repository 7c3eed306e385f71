"""A gateway for blocking clients, requests to it, and the responses that are allowed."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tests.fakes.backend import Backend
from tests.http.raw_http import CODES, Answer, address, assert_error
from tests.serving import Running, configuration, serving

CHAT, COMPLETIONS, EMBEDDINGS, ROUTE = ROUTES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/route",
)
SECONDS = 10.0
"""Longer than any request takes on a busy machine, so a timeout means that the gateway hangs."""


class Live:
    """A gateway and its backend in a thread of their own, for clients that block."""

    def __init__(self, store: str) -> None:
        """store: a file for the evidence."""
        self._store = store
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),))
        self.running: Running
        self.backend: Backend

    async def _serve(self) -> None:
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        # light: the fake must not take instructions from generated values in `metadata`
        async with (
            Backend("tiny", light=True) as self.backend,
            serving(configuration(self.backend.url, evidence={"file": self._store})) as self.running,
        ):
            self._ready.set()
            await self._stop.wait()

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(SECONDS)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(SECONDS)

    def post(self, path: str, body: bytes, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(*address(self.running.url), timeout=SECONDS)
        try:
            connection.request("POST", path, body, {"content-type": "application/json"} | headers)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def assert_serving(self) -> None:
        """A valid request is served, and no earlier request is still in flight."""
        answer = self.post(CHAT, encoded({}))
        assert (answer.status, answer.headers["x-thinkmeter-backend"]) == (200, "a")
        asyncio.run_coroutine_threadsafe(self._idle(), self._loop).result(SECONDS)

    async def _idle(self) -> None:
        """Wait until no request is in flight: a client has its response shortly before its slot is free."""
        gateway = self.running.gateway
        async with asyncio.timeout(SECONDS / 2):
            while any(backend.in_flight for _, backend in gateway.snapshot.backends()) or (
                gateway.metrics.registry.get_sample_value("thinkmeter_requests_in_flight")
            ):
                await asyncio.sleep(0.001)


def encoded(fields: dict[str, Any], *, without: str | None = None) -> bytes:
    """A request that is valid on every route, except for these fields."""
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": "tiny", "messages": messages, "prompt": "hello", "input": "hello"} | fields
    return json.dumps({name: value for name, value in body.items() if name != without}).encode()


def assert_fair(answer: Answer, sent: bytes) -> None:
    """The request was served, or refused with a documented 4xx error."""
    served = answer.status in {200, 202, 207}
    assert served or 400 <= answer.status < 500, (sent[:300], answer)
    if not served:
        assert_error(answer, answer.status, answer.code)
        assert answer.code in CODES


GOOD = encoded({})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FUZZ = settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
