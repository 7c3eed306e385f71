"""TLS to backends: private CAs, client certificates, and the cause when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.config.models import ReplicaTls
from gateway.config.tls import TlsFileError, tls_context
from gateway.errors import BackendError
from gateway.upstream.causes import Cause
from gateway.upstream.client import HttpClient
from tests.authority import Authority, Certificate
from tests.fakes.backend import Backend

HERE = "IP:127.0.0.1"


@pytest.fixture(scope="module")
def server(authority: Authority) -> Certificate:
    return authority.certificate("server", HERE)


@pytest.fixture(scope="module")
def client_certificate(authority: Authority) -> Certificate:
    return authority.certificate("gateway")


async def get(url: str, tls: ReplicaTls | None, connect: float = 10) -> tuple[str, str]:
    """The word and the text of the cause of a failure; ("200", "") if there is none."""
    client = HttpClient(keep_alive=4)
    try:
        response = await client.request(b"GET", url, "/health", [], b"", connect=connect, tls=tls)
        await response.read(1 << 20)
        return str(response.status), ""
    except BackendError as error:
        assert isinstance(error.detail, Cause)
        return error.detail.word, error.detail
    finally:
        client.close()
        await asyncio.sleep(0)


def caused(word: str, seen: str) -> tuple[str, str]:
    return word, Cause(word, seen)


@asynccontextmanager
async def speaking(context: ssl.SSLContext | None) -> AsyncIterator[str]:
    async with Backend("tiny", tls=context) as backend:
        yield backend.url


# --- what is trusted ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_private_ca_and_client_certificate(
    authority: Authority,
    server: Certificate,
    client_certificate: Certificate,
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """A server of the private CA that asks for a client certificate is reached with both, and only then."""
    ours = {"cert": client_certificate.cert, "key": client_certificate.key}

    async def ask() -> list[str]:
        async with speaking(server.context(clients=authority.ca)) as url:
            with_both = await get(url, ReplicaTls(ca=authority.ca, **ours))
            return [with_both[0], (await get(url, ReplicaTls(**ours)))[0]]

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(ask()) == ["200", "certificate_unknown_ca"]


async def test_certificates_that_are_not_trusted(authority: Authority, server: Certificate) -> None:
    """Each reason has its own word; `name` and `verify` accept what would otherwise be refused."""
    trusted = ReplicaTls(ca=authority.ca)
    old = authority.certificate("old", HERE, days=-1)
    other = authority.certificate("other", "DNS:other.example")
    async with speaking(server.context()) as url:
        assert (await get(url, None))[0] == "certificate_unknown_ca"
        assert (await get(url, trusted))[0] == "200"
    async with speaking(old.context()) as url:
        assert (await get(url, trusted))[0] == "certificate_expired"
        assert (await get(url, ReplicaTls(verify=False)))[0] == "200"
    async with speaking(other.context()) as url:
        assert (await get(url, trusted))[0] == "certificate_wrong_name"
        assert (await get(url, ReplicaTls(ca=authority.ca, name="other.example")))[0] == "200"


async def test_connections_are_not_shared_across_settings(authority: Authority, server: Certificate) -> None:
    """A kept connection that was opened without verification serves no request that wants one."""
    client = HttpClient(keep_alive=4)
    async with speaking(server.context()) as url:
        for tls, works in (
            (ReplicaTls(verify=False), True),
            (None, False),
            (ReplicaTls(ca=authority.ca), True),
        ):
            with contextlib.nullcontext() if works else pytest.raises(BackendError):
                response = await client.request(b"GET", url, "/health", [], b"", connect=10, tls=tls)
                await response.read(1 << 20)
        client.close()


# --- other failures of TLS ------------------------------------------------------------------------------


async def test_client_certificates_that_are_missing(authority: Authority, server: Certificate) -> None:
    """The server says so in an alert, or, as asyncio's do, closes the connection without one."""
    ours = ReplicaTls(ca=authority.ca)
    async with speaking(server.context(clients=authority.ca)) as url:
        assert (await get(url, ours))[0] == "tls_closed"
    with alerting(server.context(clients=authority.ca)) as url:
        assert await get(url, ours) == caused("client_certificate", "TLSV13_ALERT_CERTIFICATE_REQUIRED")


@contextlib.contextmanager
def alerting(context: ssl.SSLContext) -> Iterator[str]:
    """A server that sends TLS alerts, for one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            accepted, _ = listener.accept()
            with context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False) as wrapped:
                with contextlib.suppress(ssl.SSLError):
                    wrapped.do_handshake()
                over.wait(10)

        over, thread = threading.Event(), threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        thread.join(10)


async def test_wrong_scheme(server: Certificate) -> None:
    """TLS to a server without it, and the other way round."""
    async with speaking(None) as url:
        assert (await get(url.replace("http", "https"), None))[0] in ("tls_not_spoken", "tls_handshake")
    async with speaking(server.context()) as url:
        assert (await get(url.replace("https", "http"), None))[0] == "closed"
    async with saying(b"\x15\x03\x01\x00\x02\x02\x46") as url:  # an alert, as openssl and nginx send it
        assert (await get(url, None))[0] == "tls_expected"
    async with saying(b"SSH-2.0-OpenSSH_9.6\r\n") as url:
        assert (await get(url, None))[0] == "unreadable"
        assert (await get(url.replace("http", "https"), None))[0] == "tls_not_spoken"


async def test_handshake_that_never_ends() -> None:
    """It ends with the connect timeout."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        word, detail = await get(f"https://127.0.0.1:{port}", None, connect=0.4)

    assert (word, detail) == caused("tls_timeout", f"127.0.0.1:{port}")


@asynccontextmanager
async def saying(words: bytes) -> AsyncIterator[str]:
    """A server that says these bytes to everybody, whatever they send."""

    class Saying(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(words)
            self.transport.close()

    server = await asyncio.get_running_loop().create_server(Saying, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


# --- the files ------------------------------------------------------------------------------------------


def test_files_that_change_are_read_again(authority: Authority, tmp_path: Path) -> None:
    """A renewed certificate is used without a reload; until its key is there, the previous pair stays."""
    first, second = authority.certificate("first"), authority.certificate("second")
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"

    def put(source: str, target: Path, at: int) -> None:
        shutil.copy(source, target)
        os.utime(target, ns=(at, at))

    put(first.cert, cert, 1)
    put(first.key, key, 1)
    settings = ReplicaTls(cert=str(cert), key=str(key))
    before = tls_context(settings)
    assert tls_context(settings) is before

    put(second.cert, cert, 2)
    assert tls_context(settings) is before
    put(second.key, key, 2)
    after = tls_context(settings)
    assert after is not before
    cert.unlink()
    assert tls_context(settings) is after


def test_a_file_that_is_gone_at_the_start(tmp_path: Path) -> None:
    """The first connection needs the files."""
    with pytest.raises(TlsFileError, match="No such file"):
        tls_context(ReplicaTls(ca=str(tmp_path / "gone.pem")))
