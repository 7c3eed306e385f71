"""Workers share a port with each other, never with another program."""

from __future__ import annotations

import socket

import pytest

from gateway.http.listening import another, reserve


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""])
def test_each_worker_listens_at_the_same_port(host: str) -> None:
    """All sockets have one port, a free one, and connections reach whoever listens."""
    reserved = reserve(host, 0)
    ports = {each.getsockname()[1] for each in reserved}
    workers = [another(reserved[0]) for _ in range(2)]
    for worker in workers:
        worker.listen()
    (port,) = ports
    with socket.create_connection(workers[0].getsockname()[:2], timeout=10) as client:
        assert client.getpeername()[1] == port
    for each in (*reserved, *workers):
        each.close()


@pytest.mark.parametrize("shares", [False, True])
def test_port_that_another_program_has(*, shares: bool) -> None:
    """A port is refused also if the other program would share it."""
    with socket.socket() as other:
        if shares:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError, match="in use"):
            reserve("127.0.0.1", other.getsockname()[1])


def test_system_that_does_not_share_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """There all workers accept from one socket."""
    monkeypatch.setattr("gateway.http.listening._SHARES_PORTS", False)
    (reserved,) = reserve("127.0.0.1", 0)
    with reserved, another(reserved) as one, another(reserved) as two:
        one.listen()
        two.listen()
        with socket.create_connection(reserved.getsockname(), timeout=10):
            accepted, _ = two.accept()
            accepted.close()
