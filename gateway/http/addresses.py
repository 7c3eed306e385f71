"""The address of the client behind the proxies that are trusted to tell it. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from gateway.http.headers import Headers

Networks = Sequence[IPv4Network | IPv6Network]


def client_address(socket_address: str, headers: Headers, proxies: Networks) -> str:
    """The last address on the way that is not a trusted proxy's.

    Each proxy adds the address that it was called from to the end of `X-Forwarded-For`. What stands before
    the entry of the last untrusted address may be invented.
    """
    if not proxies or not _within(_parsed(socket_address), proxies):
        return socket_address
    last = socket_address
    for entry in reversed(_forwarded_for(headers)):
        address = _parsed(entry)
        if address is None:
            break
        last = str(address)
        if not _within(address, proxies):
            break
    return last


def _forwarded_for(headers: Headers) -> list[str]:
    lines = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
    return [entry.strip() for entry in ",".join(lines).split(",")] if lines else []


def _parsed(entry: str) -> IPv4Address | IPv6Address | None:
    """The address in `192.0.2.1`, `192.0.2.1:1234`, `2001:db8::1` or `[2001:db8::1]:1234`."""
    if entry.startswith("["):
        entry = entry[1:].partition("]")[0]
    elif entry.count(":") == 1:
        entry = entry.partition(":")[0]
    try:
        address = ip_address(entry)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _within(address: IPv4Address | IPv6Address | None, networks: Networks) -> bool:
    return address is not None and any(address in network for network in networks)
