"""The process of one worker: a gateway that its supervisor starts, reloads and stops."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from socket import socket

import msgspec
from msgspec import Struct

from gateway.app import Gateway
from gateway.config.loader import ConfigError
from gateway.config.workers import share_of_worker
from gateway.http.channel import ChannelError, WorkerChannel
from gateway.snapshot import Snapshot
from gateway.telemetry.log_writer import StandardStreams
from router_model.artifact import PackedHead

log = logging.getLogger("thinkmeter.workers")


class Setup(Struct):
    """What the supervisor tells a worker on its command line. Its standard input is the configuration."""

    host: str
    port: int
    workers: int
    channel: int
    """The descriptor of its end of the channel to the supervisor."""
    sockets: list[int]
    """Descriptors of the sockets to listen on."""
    lock: int
    """Descriptor of the file that is locked while a log line is written."""


def run_worker() -> None:
    """Serve until a signal, or until the supervisor has ended."""
    setup = msgspec.json.decode(sys.argv[1], type=Setup)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the supervisor reloads
    streams = StandardStreams.of_process()
    streams.share(setup.lock)
    streams.take_logging()
    channel = WorkerChannel(socket(fileno=setup.channel))
    snapshot = _built(sys.stdin.buffer.read(), setup.workers)

    gateway = Gateway(snapshot, streams=streams, follow=lambda: _follow(channel, gateway, setup.workers))
    gateway.scrapes.merge = partial(_merged, channel)
    gateway.console.join(partial(channel.ask, "console"))
    gateway.run(setup.host, setup.port, [socket(fileno=number) for number in setup.sockets])


def _built(raw: bytes, workers: int, promoted: PackedHead | None = None) -> Snapshot:
    """What a worker serves with: its share of what the configuration allows. Raises: ConfigError."""
    snapshot = Snapshot.read(raw, promoted)
    return replace(snapshot, settings=share_of_worker(snapshot.settings, workers))


async def _merged(channel: WorkerChannel, text: bytes) -> bytes:
    (merged,) = await channel.ask("metrics", text)
    return merged


async def _follow(channel: WorkerChannel, gateway: Gateway, workers: int) -> None:
    """Tell the supervisor that the worker serves, and answer what it asks. If it ends, end as well."""
    one_by_one = asyncio.Lock()  # the later of two configurations must stay, also if it is built faster

    async def reload(raw: bytes, *, counted: bool) -> None:
        try:
            async with one_by_one:
                promoted = gateway.snapshot.promoted
                gateway.reload(await asyncio.to_thread(_built, raw, workers, promoted), counted=counted)
        except ConfigError as error:  # the supervisor has taken it
            log.error("this worker keeps the old configuration: %s", error)  # noqa: TRY400

    async def handle(name: str, body: bytes) -> list[bytes]:
        return await answers[name](body) or []

    async def metrics(_: bytes) -> list[bytes]:
        return [await gateway.scrapes.own()]

    async def console(body: bytes) -> list[bytes]:
        return [gateway.console.report(body)]

    async def refused(_: bytes) -> None:
        gateway.metrics.reloads.labels("refused").inc()

    answers: dict[str, Callable[[bytes], Awaitable[list[bytes] | None]]] = {
        "metrics": metrics,
        "console": console,
        "reload": partial(reload, counted=True),
        "reload-uncounted": partial(reload, counted=False),
        "refused": refused,
    }
    await channel.open()

    async def tell_ready() -> None:
        with suppress(ChannelError):  # the supervisor has ended, which `run` notices
            await channel.ask("ready")

    ready = asyncio.create_task(tell_ready(), name="worker-ready")
    await channel.run(handle)
    ready.cancel()
    log.error("the supervisor has ended: this worker ends as well")
    os.kill(os.getpid(), signal.SIGTERM)
