"""A server of embeddings for faults: the words of a text, hashed, or whatever a test wants instead."""

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
    """A running server. `status`, `body`, `delay` (seconds) and `salt` (another model) may be changed."""

    url: str = ""
    key: str | None = None
    status: int = 200
    body: bytes | None = None
    delay: float = 0.0
    salt: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """All texts that were embedded, in order."""
        return [text for one in self.asked for text in one["input"]]

    def vector(self, text: str) -> list[float]:
        """Counts of the words, those of digits apart, hashed."""
        found = [0.01] * WIDTH
        for word in text.lower().split():
            found[zlib.crc32((self.salt + word).encode()) % WIDTH] += not word.isdecimal()
        return found


@contextlib.contextmanager
def embeddings(**settings: Any) -> Iterator[Embeddings]:
    """Serve on a free port, in threads of its own."""
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
                vectors = [{"index": at, "embedding": fake.vector(t)} for at, t in enumerate(asked["input"])]
                body = json.dumps({"object": "list", "data": vectors[::-1]}).encode()
            with contextlib.suppress(OSError):  # the client may have gone
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

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
