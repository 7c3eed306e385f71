"""
The floods, as what their clients send.

    python -m tests.bench.flood_clients PORT SECONDS NAME [--prepare]

Prints as JSON how often each outcome came: a status, or the error that ended a connection. Clients that wait
for a response ask again at once. Connections that are only held are opened again when the gateway closes
them.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from tests.bench.flood_backend import MODEL

FLOOD_KEY, SPENT_KEY = "sk-flood", "sk-spent"
BIG_BYTES = 33_000_000
RESPONSE = b"HTTP/1.1 "
PATIENCE_S = 60.0
CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Job:
    """Where a client floods, and until when (`time.monotonic`)."""

    port: int
    until: float
    outcomes: Counter[str]

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.until

    def connect(self, receive: int | None = None) -> socket.socket:
        """receive: bytes of the receive buffer."""
        client = socket.socket()
        client.settimeout(PATIENCE_S)
        if receive:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        client.connect(("127.0.0.1", self.port))
        return client

    def sleep(self, seconds: float) -> None:
        time.sleep(max(0.0, min(seconds, self.until - time.monotonic())))


Client = Callable[[Job], None]
"""Sends one request or one burst, or holds connections; it is called again until the time is over."""


@dataclass(frozen=True)
class Flood:
    """What some clients send at the same time, and what the backend answers to it."""

    about: str
    client: Client
    clients: int = 1
    answer: str = "short"
    holders: int = 0
    """Keys whose use the budgets have counted before the flood."""


def request(body: bytes, key: str = FLOOD_KEY) -> bytes:
    """One chat request with its head."""
    return (
        f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def chat(content: str = "x", **fields: object) -> bytes:
    """The body of a chat request, in UTF-8."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}]} | fields
    return json.dumps(body, ensure_ascii=False).encode()


def stream(body: Callable[[], bytes]) -> bytes:
    """The same request, with a streamed response."""
    return body()[:-1] + b',"stream":true}'


@cache
def big_text() -> bytes:
    return chat("a" * BIG_BYTES + "😀")


@cache
def big_metadata() -> bytes:
    return chat(metadata={f"k{n}": n for n in range(1_200_000)})


def ask(job: Job, body: Callable[[], bytes] = chat, key: str = FLOOD_KEY) -> None:
    """Send one request on a connection of its own, and read the whole response."""
    connection = http.client.HTTPConnection("127.0.0.1", job.port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        connection.request("POST", CHAT, body(), headers)
        response = connection.getresponse()
        response.read()
        job.outcomes[str(response.status)] += 1


def scrape(job: Job) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{job.port}/metrics", timeout=PATIENCE_S) as response:
        response.read()
        job.outcomes[str(response.status)] += 1


def hold(job: Job, body: Callable[[], bytes] = chat, receive: int | None = None, seconds: float = 60) -> None:
    """Send a request, read the beginning of its response, and then nothing for so long.

    receive: bytes of the receive buffer.
    """
    with job.connect(receive) as client:
        client.sendall(request(body()))
        job.outcomes[client.recv(1_000)[9:12].decode("latin-1") or "closed"] += 1
        job.sleep(seconds)


def keep_open(job: Job, count: int, sent: bytes = b"") -> None:
    """Hold connections that each send something unfinished, and open those again that the gateway closes."""
    held: list[socket.socket] = []
    while not job.over:
        held = [client for client in held if not closed(client)]
        for _ in range(count - len(held)):
            with contextlib.suppress(OSError):
                client = job.connect()
                held.append(client)
                client.sendall(sent)
                job.outcomes["opened"] += 1
        job.sleep(0.5)
    for client in held:
        client.close()


def closed(client: socket.socket) -> bool:
    """Whether the gateway has closed a connection. If so, this side is closed, too."""
    client.setblocking(False)
    try:
        while client.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    client.close()
    return True


def pipeline(job: Job, make: Callable[[], bytes], count: int) -> None:
    """Send many requests at once on a new connection, and read until all responses came or it is closed."""
    with job.connect() as client:
        sender = threading.Thread(target=_send, args=(client, b"".join(make() for _ in range(count))))
        sender.start()
        tail, found = b"", 0
        while found < count and (data := client.recv(1 << 16)):
            found += (tail + data).count(RESPONSE)
            tail = (tail + data)[1 - len(RESPONSE) :]
        job.outcomes["responses"] += found
        sender.join()


def _send(client: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        client.sendall(data)


def upgrade() -> bytes:
    return b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


def wrong_key() -> bytes:
    return request(chat(), f"sk-{random.getrandbits(64):x}")


@cache
def byte_chunks() -> bytes:
    """A chunked request of 1 MB, each of whose chunks has one byte."""
    head = request(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    return head + b"".join(b"1\r\n%c\r\n" % byte for byte in chat("a" * 1_000_000)) + b"0\r\n\r\n"


def holder_key(number: int) -> str:
    return f"sk-holder-{number}"


UNFINISHED = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 120_000
FLOODS = {
    "spent-text": Flood(
        "a spent key sends 33 MB of text and an emoji", partial(ask, body=big_text, key=SPENT_KEY)
    ),
    "spent-metadata": Flood(
        "a spent key sends 21 MB of metadata", partial(ask, body=big_metadata, key=SPENT_KEY)
    ),
    "bodies": Flood(
        "four bodies of 33 MB at once, and again while their responses stream",
        partial(hold, body=partial(stream, big_text), seconds=2), 4, "open_stream",
    ),
    "failing": Flood(
        "requests of 33 MB, one after the other, that the backend refuses", partial(ask, body=big_text),
        answer="refusal",
    ),
    "whole": Flood("a client leaves a whole response of 400 MB unread", hold, 1, "whole"),
    "wholes": Flood("20 clients leave whole responses of 400 MB unread", hold, 20, "whole"),
    "streams": Flood(
        "20 clients leave streams of 11 MB unread",
        partial(hold, body=partial(stream, chat), receive=4_096), 20, "long_stream",
    ),
    "heads": Flood(
        "1,500 connections that each send 120 kB of a header",
        partial(keep_open, count=1_500, sent=UNFINISHED),
    ),
    "idle": Flood("3,000 connections that send nothing", partial(keep_open, count=3_000)),
    "pieces": Flood(
        "streams with an event of 1 MB that arrives in pieces of 64 bytes",
        partial(ask, body=partial(stream, chat)), answer="pieces",
    ),
    "upgrades": Flood(
        "40 connections that each pipeline 400 requests to upgrade",
        partial(pipeline, make=upgrade, count=400), 40,
    ),
    "scrapes": Flood("scrapes of 10,000 holders, one after the other", scrape, holders=10_000),
    "byte-chunks": Flood(
        "four clients send 1 MB in chunks of one byte", partial(pipeline, make=byte_chunks, count=1), 4
    ),
    "wrong-keys": Flood(
        "16 clients that pipeline 50 requests with wrong keys",
        partial(pipeline, make=wrong_key, count=50), 16,
    ),
}  # fmt: skip


def run(flood: Flood, port: int, seconds: float) -> Counter[str]:
    """Flood a gateway for some seconds. Returns how often each outcome came."""
    job = Job(port, time.monotonic() + seconds, Counter())

    def client() -> None:
        while not job.over:
            try:
                flood.client(job)
            except (OSError, http.client.HTTPException) as error:
                job.outcomes[type(error).__name__] += 1

    threads = [threading.Thread(target=client) for _ in range(flood.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return job.outcomes


def use_all(port: int, holders: int, clients: int = 8) -> None:
    """Let every holder ask once."""

    def client(numbers: range) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        for number in numbers:
            headers = {"authorization": f"Bearer {holder_key(number)}", "content-type": "application/json"}
            connection.request("POST", CHAT, chat(), headers)
            connection.getresponse().read()

    threads = [
        threading.Thread(target=client, args=(range(first, holders, clients),)) for first in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("flood", choices=FLOODS)
    parser.add_argument("--prepare", action="store_true", help="only what comes before the flood")
    options = parser.parse_args()
    flood = FLOODS[options.flood]
    if options.prepare:
        use_all(options.port, flood.holders)
    else:
        print(json.dumps(run(flood, options.port, options.seconds)))


if __name__ == "__main__":
    main()
