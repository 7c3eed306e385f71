"""A fake embeddings server. A vector counts hashed words, unless a test scripts a failure."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WIDTH = 48


@dataclass
class Embeddings:
    """A running server; a test may change its fields at any time."""

    url: str = ""
    key: str | None = None
    """The API key that clients must send, if any."""
    status: int = 200
    body: bytes | None = None
    """Sent instead of the vectors."""
    delay: float = 0.0
    """Seconds before a response."""
    salt: str = ""
    """Another salt gives other vectors, as another model would."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """The bodies of all requests, in order."""

    @property
    def texts(self) -> list[str]:
        """All texts that were embedded, in order."""
        return [text for request in self.asked for text in request["input"]]

    def vector(self, text: str) -> list[float]:
        """Counts of the words by their hash; numbers are not counted."""
        counts = [0.01] * WIDTH
        for word in text.lower().split():
            counts[zlib.crc32((self.salt + word).encode()) % WIDTH] += not word.isdecimal()
        return counts


@contextlib.contextmanager
def embeddings(**settings: Any) -> Iterator[Embeddings]:
    """Serve on a free port, in separate threads."""
    fake = Embeddings(**settings)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fake.asked.append(asked)
            time.sleep(fake.delay)
            status, body = fake.status, fake.body
            if fake.key and self.headers["Authorization"] != f"Bearer {fake.key}":
                status, body = 401, b'{"error": {"message": "no such key"}}'
            if body is None:
                vectors = [{"index": i, "embedding": fake.vector(t)} for i, t in enumerate(asked["input"])]
                body = json.dumps({"object": "list", "data": vectors[::-1]}).encode()
            with contextlib.suppress(OSError):  # the client may have left
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
