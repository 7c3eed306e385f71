"""The sockets on which several processes listen at one address."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

_SHARES_PORTS = hasattr(socket, "SO_REUSEPORT")
"""Whether the system divides the connections to a port among the sockets that are bound to it."""


def reserve(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to all addresses of a host, on which nobody listens yet.

    port: 0 takes a free one.

    Raises: OSError, if another program listens there.
    """
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    reserved: list[socket.socket] = []
    for family, address in dict.fromkeys((info[0], info[4]) for info in found):
        taken = reserved[0].getsockname()[1] if reserved else port
        place = (address[0], taken, *address[2:])
        if taken:  # sharing the port, two gateways would take each other's requests
            _bound(family, place, shared=False).close()
        reserved.append(_bound(family, place, shared=_SHARES_PORTS))
    return reserved


def another(reserved: socket.socket) -> socket.socket:
    """A socket for one process at the address of a reserved one."""
    if not _SHARES_PORTS:
        return reserved.dup()  # all processes accept from one queue
    return _bound(reserved.family, reserved.getsockname(), shared=True)


def _bound(family: int, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            with suppress(OSError):
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made
