"""Opens connections to backends: tries all addresses of a name (RFC 8305), or says why none works."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from gateway.config.tls import TlsFileError, tls_context
from gateway.upstream.causes import Cause
from gateway.upstream.origin import Origin
from gateway.upstream.resolving import Address, Resolver, in_order

P = TypeVar("P", bound=asyncio.Protocol)
Opened = tuple[asyncio.BaseTransport, P]
Attempt = Callable[[], Coroutine[Any, Any, Opened[P]]]

_DELAY = 0.25  # seconds until the next address is tried as well, as RFC 8305 recommends
_MOST = 16  # addresses that one connection tries
_AVOIDED = 60.0  # seconds for which an address that did not lead to a connection is tried last


class ConnectError(Exception):
    """No address of a backend could be reached."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause)
        self.cause = cause


class Connector:
    """Opens connections to any number of servers."""

    def __init__(self, resolver: Resolver | None = None) -> None:
        self._resolver = resolver or Resolver()
        self._turns: dict[str, int] = {}
        """Connections opened so far, by host."""
        self._avoided: dict[Address, float] = {}
        """Addresses that did not lead to a connection, and until when they are tried last."""

    async def connect(self, protocol: Callable[[], P], origin: Origin, seconds: float) -> P:
        """Open a connection to any address of a server, within `seconds` in all.

        Raises: ConnectError.
        """
        reached: dict[Address | None, Cause] = {
            None: Cause("name_not_resolved", f"{origin.host}: no response of DNS in {seconds:g} s")
        }
        try:
            async with asyncio.timeout(seconds):
                context = tls_context(origin.tls_settings) if origin.tls else None
                addresses = await self._resolver.addresses(origin.host, origin.port, seconds)
                ordered = self._order(origin.host, addresses)
                reached.clear()
                attempts = [partial(_attempt, protocol, origin, context, a, reached) for a in ordered]
                _, opened = await race(attempts, min(_DELAY, seconds / (2 * len(attempts))))
        except TlsFileError as error:
            raise ConnectError(Cause("tls_files", str(error))) from None
        except socket.gaierror as error:
            raise ConnectError(Cause("name_not_resolved", f"{origin.host}: {error.strerror}")) from None
        except OSError:  # all addresses failed, or the time is over: begin with the others next time
            self._try_last([address for address in reached if address])
            raise ConnectError(max(reached.values(), key=lambda cause: cause.rank)) from None
        self._try_last([address for address in ordered if address in reached])
        return opened

    def _order(self, host: str, addresses: tuple[Address, ...]) -> list[Address]:
        turn = self._turns[host] = self._turns.get(host, -1) + 1
        now = time.monotonic()
        avoided = {address for address, end in self._avoided.items() if end > now}
        return in_order(addresses, turn, avoided)[:_MOST]

    def _try_last(self, addresses: list[Address]) -> None:
        """Remember the addresses that did not lead to a connection although they were tried."""
        if addresses:
            now = time.monotonic()
            kept = {address: end for address, end in self._avoided.items() if end > now}
            self._avoided = kept | dict.fromkeys(addresses, now + _AVOIDED)


async def _attempt(
    protocol: Callable[[], P],
    origin: Origin,
    context: ssl.SSLContext | None,
    address: Address,
    reached: dict[Address | None, Cause],
) -> Opened[P]:
    """Connect to one address. While it has not succeeded, `reached` says how far it has got.

    Raises: OSError.
    """
    loop, where, name = asyncio.get_running_loop(), str(address), None
    reached[address] = Cause("connect_timeout", where)
    try:
        connected = await _tcp(loop, address)
        if context:
            reached[address] = Cause("tls_timeout", where)
            name = (origin.tls_settings and origin.tls_settings.name) or origin.host.rstrip(".")
        opened = await loop.create_connection(protocol, sock=connected, ssl=context, server_hostname=name)
    except OSError as error:
        reached[address] = connect_cause(error, where, tls=reached[address].word == "tls_timeout")
        raise
    del reached[address]
    return opened


async def _tcp(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    connecting = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(connecting, address.sockaddr)
    except BaseException:
        connecting.close()
        raise
    return connecting


async def race(attempts: Sequence[Attempt[P]], delay: float) -> Opened[P]:
    """The result of the first attempt that succeeds.

    An attempt begins when the one before has failed, or has taken `delay` seconds. When one succeeds, the
    others are cancelled.

    Raises: OSError, that of the last attempt, if all fail.
    """
    if len(attempts) == 1:
        return await attempts[0]()
    waiting, running = deque(attempts), set[asyncio.Task[Opened[P]]]()
    failure: BaseException = OSError("no address")
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.create_task(waiting.popleft()()))
            pause = delay if waiting else None
            done, _ = await asyncio.wait(running, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                running.discard(task)
                if (error := task.exception()) is None:
                    running |= done - {task}
                    return task.result()
                failure = error
        raise failure
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_close_late)


def _close_late(task: asyncio.Task[Opened[P]]) -> None:
    """Close the connection of an attempt that succeeded too late."""
    if not task.cancelled() and task.exception() is None:
        transport, _ = task.result()
        transport.close()


# --- what an exception means ----------------------------------------------------------------------------

_OS_ERRORS = {
    errno.ECONNREFUSED: "refused",
    errno.ETIMEDOUT: "connect_timeout",
    errno.ECONNRESET: "closed",
    errno.ECONNABORTED: "closed",
    errno.EPIPE: "closed",
    errno.EMFILE: "gateway_limit",
    errno.ENFILE: "gateway_limit",
    errno.ENOBUFS: "gateway_limit",
    errno.EAGAIN: "gateway_limit",
    **dict.fromkeys(
        (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL),
        "unreachable",
    ),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EAFNOSUPPORT, errno.EINVAL), "unreachable"),
}

_VERIFY_CODES = {
    **dict.fromkeys((2, 18, 19, 20, 21), "certificate_unknown_ca"),  # no issuer, or self-signed
    10: "certificate_expired",
    **dict.fromkeys((62, 64), "certificate_wrong_name"),  # host name, IP address
}
"""OpenSSL's X509_V_ERR_… codes."""

_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL")
_CLIENT_ALERTS = (
    *("CERTIFICATE_REQUIRED", "ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "ALERT_CERTIFICATE_EXPIRED"),
    *("ALERT_CERTIFICATE_REVOKED", "ALERT_CERTIFICATE_UNKNOWN", "ALERT_UNSUPPORTED_CERTIFICATE"),
)


def connect_cause(error: OSError, where: str, *, tls: bool = False) -> Cause:
    """What an exception while connecting means; `where` is the address. tls: the handshake had begun."""
    if isinstance(error, ssl.SSLCertVerificationError):
        word = _VERIFY_CODES.get(error.verify_code, "certificate_invalid")
        return Cause(word, f"{where}: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return tls_cause(error, where)
    if tls:
        return Cause("tls_handshake", f"{where}: it closed the connection")
    word = _OS_ERRORS.get(error.errno or 0, "connect_failed")
    return Cause(word, f"{where}: {error.strerror}" if word != "refused" and error.strerror else where)


def tls_cause(error: ssl.SSLError, where: str = "") -> Cause:
    """What an error of TLS other than an untrusted certificate means."""
    reason = error.reason or type(error).__name__
    word = "tls_handshake"
    if reason in _NOT_TLS:
        word = "tls_not_spoken"
    elif any(alert in reason for alert in _CLIENT_ALERTS):
        word = "client_certificate"
    return Cause(word, f"{where}: {reason}" if where else reason)


def lost_cause(error: BaseException | None, *, unused_tls: bool) -> Cause:
    """Why a connection ended before its response.

    unused_tls: it has TLS, and nothing has arrived over it yet. With TLS 1.3, only then does a server refuse
    a client certificate, and many close the connection without an alert.
    """
    if isinstance(error, ssl.SSLError):
        return tls_cause(error)
    if unused_tls:
        return Cause("tls_closed")
    if isinstance(error, OSError) and error.strerror:
        return Cause("closed", error.strerror)
    return Cause("closed")
