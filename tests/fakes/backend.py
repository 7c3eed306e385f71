"""
A scriptable backend that speaks vLLM's OpenAI dialect and fails on demand. FOR FAULT AND LOAD TESTS ONLY.

It has no model: it reasons `r0 r1 …` for as many tokens as the request allows, and then says `t0 t1 t2 …`.
The real vLLM has its own test suite. This fake exists because no real server breaks at byte 17 on request.

In a test:

    async with Backend("tiny") as backend:                # its own port; backend.url
        backend.script(Fault(status=503, headers={"Retry-After": "2"}), times=2)   # the next two requests
        backend.script(Fault(after=3, end="cut"))         # the third breaks off after three token events
        backend.script(Fault(status=500), path="/health", times=None)              # until clear()
        backend.default = Fault(pace_ms=5)                # all other requests
        ...
        await backend.wait_until(lambda b: b.aborted)     # the backend has seen the client disconnect
        assert backend.requests[0].json["max_completion_tokens"] == 64
        await backend.down()                              # open connections are reset, new ones refused
        await backend.up()                                # listens on the same port again

`script` without a path applies to POST /v1/chat/completions, /v1/completions and /v1/embeddings. Scripted
faults are used up in order. A request may carry its own fault, which takes precedence: as a JSON object or a
string in `metadata.fault`, or in the header `x-fault`, with the fields of `tests.fakes.fault.Fault`.

`requests` keeps all requests (method, path, headers, body, json, outcome). `in_flight` counts those that are
being served. `aborted` lists those whose client left before the whole response was written. To test a
cancellation, give the response a `pace_ms`, a `delay_ms` or `end="stall"`: otherwise it is complete before
the client can leave.

On its own: `python -m tests.fakes.backend --port 9000 [--served-name fake] [--fault JSON] [--light]`. Script
it over HTTP: `POST /fake/script {"fault": {…}, "times": 1, "path": null}`, `POST /fake/default {…}`,
`GET /fake/state`. `--light` is for load tests: nothing is recorded, faults in requests are ignored, responses
to bodies that differ only in a serial number are planned once, and streams take turns writing bursts of 8
events, as fast as the clients read, or one event at a time at their pace.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Self

import msgspec
import orjson
import uvloop

from tests.fakes import dialect, plan
from tests.fakes.connection import Connection, Request
from tests.fakes.fault import Fault, decode
from tests.fakes.light import Kept, steady

GENERATION = frozenset(("/v1/chat/completions", "/v1/completions", "/v1/embeddings"))
NOT_FOUND = b'{"detail":"Not Found"}'


class Scripted(msgspec.Struct):
    fault: Fault
    """A fault that waits for requests to a path."""

    times: int | None = 1
    """How many requests it applies to; None until `clear()`."""
    path: str | None = None

    def fits(self, path: str) -> bool:
        return path == self.path if self.path else path in GENERATION


class Backend:
    """One fake server; see the module's docstring."""

    def __init__(
        self, served_name: str = "fake", *, port: int = 0, max_model_len: int = 32_768, clamp: bool = False,
        light: bool = False, tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self.served_name = served_name
        self.port = port
        self.max_model_len = max_model_len
        self.clamp = clamp
        self.light = light
        self.tls = tls
        self.default = Fault()
        self.requests: list[Request] = []
        self.aborted: list[Request] = []
        self.in_flight = 0
        self.connections: set[Connection] = set()
        self._scripted: list[Scripted] = []
        self._serial = itertools.count(1)
        self._kept = Kept()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    async def up(self) -> None:
        """Listen, on the same port as before if there was one."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self), "127.0.0.1", self.port, backlog=4096, ssl=self.tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Stop listening and reset all connections."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self.connections):
            connection.reset()
        await self.wait_until(lambda _: not self.connections)
        await self._server.wait_closed()
        self._server = None

    def script(self, fault: Fault, *, times: int | None = 1, path: str | None = None) -> None:
        """Apply this fault to the next `times` matching requests."""
        self._scripted.append(Scripted(fault, times, path))
        self._kept.clear()

    def clear(self) -> None:
        """Remove all scripted faults and the default."""
        self._scripted.clear()
        self.default = Fault()
        self._kept.clear()

    async def wait_until(self, predicate: Callable[[Backend], Any], seconds: float = 5.0) -> None:
        """Wait for a state. The predicate is evaluated after every change, so no poll sleeps."""
        try:
            async with asyncio.timeout(seconds):
                while not predicate(self):
                    await self._changed.wait()
        except TimeoutError:
            raise TimeoutError(f"not reached in {seconds} s: {self.state()}") from None

    def changed(self) -> None:
        """Let everything in `wait_until` look again."""
        self._changed.set()
        self._changed.clear()

    def state(self) -> dict[str, int]:
        return {
            "requests": len(self.requests),
            "in_flight": self.in_flight,
            "aborted": len(self.aborted),
            "connections": len(self.connections),
        }

    def refuses(self) -> bool:
        """Whether to close a new connection at once."""
        if self._scripted and self._scripted[0].fault.refuse:
            self._use(self._scripted[0])
            return True
        return self.default.refuse

    def _use(self, scripted: Scripted) -> Fault:
        if scripted.times is not None:
            scripted.times -= 1
            if scripted.times <= 0:
                self._scripted.remove(scripted)
        return scripted.fault

    def _fault_for(self, request: Request) -> Fault:
        own = None if self.light else request.own_fault
        if own is not None:
            return own
        for scripted in self._scripted:
            if scripted.fits(request.path):
                return self._use(scripted)
        return self.default if request.path in GENERATION else Fault()

    def answer(self, request: Request) -> Iterator[plan.Action]:
        """The writes, waits and breaks that make up the response."""
        if self.light and (kept := self._kept.find(request.path, request.body)) is not None:
            return kept
        try:
            request.fault = fault = plan.applied(self._fault_for(request), request.json)
            if self.light and request.path in GENERATION and not self._scripted:
                kept_fault = steady(fault, sse=request.streams)
                if kept_fault is not None:
                    planned = self._plan(request, kept_fault)
                    return self._kept.keep(request.path, request.body, planned, fault.pace_ms)
            return plan.written(self._plan(request, fault), fault)
        except plan.Refused as refused:
            return plan.whole(orjson.dumps(refused.body), Fault(status=refused.status))

    def _plan(self, request: Request, fault: Fault) -> Iterator[plan.Action]:
        canned = plan.canned(fault, sse=request.streams)
        if canned is not None:
            return canned
        if request.method == "GET":
            body = self._get(request)
            return plan.whole(NOT_FOUND, Fault(status=404)) if body is None else plan.whole(body, fault)
        if request.path.startswith("/fake/"):
            return plan.whole(self._control(request), fault)
        ask = plan.parse(request.body, self.served_name)
        serial = request.headers.get("x-request-id") or f"{next(self._serial):016x}"
        if request.path == "/v1/embeddings":
            return plan.whole(orjson.dumps(dialect.embeddings(ask, serial)), fault)
        if request.path == "/tokenize":
            count = ask.prompt_tokens
            counted = {
                "count": count,
                "max_model_len": self.max_model_len,
                "tokens": list(range(count)),
                "token_strs": None,
            }
            return plan.whole(orjson.dumps(counted), fault)
        if request.path == "/detokenize":
            return plan.whole(b'{"prompt":"detokenized"}', fault)
        if request.path not in GENERATION:
            return plan.whole(NOT_FOUND, Fault(status=404))
        return plan.generate(
            request.path, ask, fault, serial, max_model_len=self.max_model_len, clamp=self.clamp
        )

    def _get(self, request: Request) -> bytes | None:
        if request.path in ("/health", "/ping"):
            return b""
        if request.path == "/v1/models":
            return orjson.dumps(dialect.models(self.served_name, self.max_model_len))
        if request.path == "/version":
            return orjson.dumps({"version": dialect.VERSION})
        if request.path == "/fake/state":
            return orjson.dumps(self.state())
        return None

    def _control(self, request: Request) -> bytes:
        try:
            if request.path == "/fake/default":
                self.clear()
                self.default = decode(request.body)
            else:
                wanted = msgspec.json.decode(request.body, type=Scripted)
                self.script(wanted.fault, times=wanted.times, path=wanted.path)
        except msgspec.DecodeError as broken:
            raise plan.Refused(400, str(broken)) from None
        return b"{}"


async def serve(options: argparse.Namespace) -> None:
    """Serve until interrupted."""
    backend = Backend(
        options.served_name, port=options.port, max_model_len=options.max_model_len, clamp=options.clamp,
        light=options.light,
    )  # fmt: skip
    backend.default = options.fault
    async with backend:
        print(f"fake backend {backend.served_name} on {backend.url}", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="a fake vLLM for fault and load tests")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--served-name", default="fake")
    parser.add_argument("--max-model-len", type=int, default=32_768)
    parser.add_argument(
        "--clamp", action="store_true", help="shorten an output that does not fit (as vLLM 0.32)"
    )
    parser.add_argument("--light", action="store_true", help="load mode: record nothing, keep responses")
    parser.add_argument("--fault", type=decode, default=Fault(), help="the default fault, as JSON")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(options))


if __name__ == "__main__":
    main()
