"""The HTTP server: uvicorn, which drains on SIGTERM before it stops."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import math
import resource
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from gateway.config.server import HttpLimits, ServerSettings
from gateway.http.connections import Connections, backlog, default_connections
from gateway.http.protocol import HttpProtocol

log = logging.getLogger("thinkmeter.server")

_M_MMAP_THRESHOLD = -3  # of malloc.h
_ENOUGH_DESCRIPTORS = 65_536
"""What the limit of open files is raised to, where the system allows it."""


class Server(uvicorn.Server):
    """Calls `drain` on a signal, and on SIGTERM keeps the port open for `drain_delay` seconds more.

    In that time load balancers notice that the gateway is not ready. A second signal closes the port at once.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain: Callable[[], None],
        drain_delay: float = 0,
        stopped: Callable[[], None] = lambda: None,
    ) -> None:
        """drain: called on a signal. stopped: called last, before the signal ends the process."""
        super().__init__(config)
        self._drain = drain
        self._stopped = stopped
        self._drain_delay = drain_delay
        self._draining = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        again, self._draining = self._draining, True
        self._drain()
        if sig != signal.SIGTERM or again or not self._drain_delay:
            super().handle_exit(sig, frame)
            return
        log.info("draining: the port closes in %g s", self._drain_delay)
        asyncio.get_running_loop().call_later(self._drain_delay, super().handle_exit, sig, frame)

    async def _serve(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super()._serve(sockets)
        finally:
            self._stopped()


def _return_freed_memory() -> None:
    """Return large blocks to the system once they are freed.

    By itself, glibc keeps blocks of up to 32 MiB once it has seen one freed, so that a few large requests
    would occupy memory for good.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def raise_descriptor_limit() -> None:
    """Raise the limit of open files, which many systems set to 1,024 and allow to raise."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_ENOUGH_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _descriptors() -> int:
    """The limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENOUGH_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def bounded_connections(limits: HttpLimits, on_refused: Callable[[], object]) -> Connections:
    """The connections of a gateway, bounded so that descriptors stay free for backends, Redis and logs."""
    most = limits.connections or default_connections(_descriptors())
    return Connections(most, limits.connections_per_address, limits.unfinished_bytes, on_refused=on_refused)


def run(
    app: ASGIApp,
    settings: ServerSettings,
    protocol: Callable[..., HttpProtocol],
    *,
    drain: Callable[[], None],
    stopped: Callable[[], None],
    sockets: list[socket.socket] | None = None,
) -> None:
    """Serve until a signal; return when all responses are complete or `drain_timeout` has passed.

    drain, stopped: see `Server`. sockets: where to listen, in place of the address in the settings.
    """
    options: dict[str, Any] = {"loop": "uvloop", "http": protocol, "ws": "none", "lifespan": "on"}
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=backlog(_descriptors()),
        timeout_keep_alive=math.ceil(settings.keep_alive),
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout),
        **options,
    )
    _return_freed_memory()
    gc.collect()
    gc.freeze()  # all that is loaded by now stays: the collector need not traverse it again
    gc.set_threshold(20_000, 20, 20)
    Server(config, drain=drain, drain_delay=settings.drain_delay, stopped=stopped).run(sockets)
