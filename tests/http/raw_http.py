"""Raw HTTP, for requests that no client library would send, and a check of the shape of errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp

from gateway.errors import all_errors

PATH = "/v1/chat/completions"
BODY = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}).encode()
"""A valid request to `PATH`."""
MIB = 2**20
CODES = {error.code for error in all_errors()}


@dataclass(frozen=True)
class Answer:
    """A complete HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code of the error object; None if the response is not an error."""
        error = self.json.get("error")
        return error["code"] if error else None


def address(url: str) -> tuple[str, int]:
    """Host and port of a URL such as `http://127.0.0.1:8000`."""
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the gateway, closed at the end."""
    reader, writer = await asyncio.open_connection(*address(url), limit=2**24)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def read_response(reader: asyncio.StreamReader, seconds: float = 10) -> Answer:
    """Read the next response on a connection. Raises: IncompleteReadError."""
    async with asyncio.timeout(seconds):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.rstrip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if status.split()[1] == "204":
            body = b""
        elif "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        else:
            body = await _read_chunks(reader)
    return Answer(int(status.split()[1]), headers, body)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


def post(path: str, body: bytes, *headers: str) -> bytes:
    """The bytes of a POST request."""
    lines = [f"POST {path} HTTP/1.1", "host: test", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


async def exchange(url: str, *blocks: bytes, seconds: float = 10) -> Answer:
    """Open a connection, send the bytes, read one response and close."""
    async with connect(url) as (reader, writer):
        for block in blocks:
            writer.write(block)
        return await read_response(reader, seconds)


async def closed(reader: asyncio.StreamReader, seconds: float = 10) -> bytes:
    """Wait until the gateway closes or resets the connection; return the bytes received until then."""
    received = b""
    async with asyncio.timeout(seconds):
        try:
            while block := await reader.read(65_536):
                received += block
        except ConnectionError:
            pass
    return received


async def ask(
    http: aiohttp.ClientSession,
    url: str,
    path: str,
    body: Any = None,
    *,
    method: str = "POST",
    **headers: str,
) -> Answer:
    """Send one request with a client library. `body` is JSON or bytes; write `x_a` for the header `x-a`."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    typed = {"content-type": "application/json"} if data is not None else {}
    named = typed | {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.request(method, url + path, data=data, headers=named) as response:
        received = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, received, await response.read())


def assert_error(answer: Answer, status: int, code: str) -> None:
    """Check that a response is this error, in the shape that OpenAI's clients expect, without internals."""
    assert answer.headers["content-type"] == "application/json", answer
    assert (status, code) == (answer.status, answer.code), answer
    assert {"error"} == set(answer.json)
    error = answer.json["error"]
    assert {"message", "type", "param", "code"} == set(error)
    assert isinstance(error["message"], str) and error["message"].strip()
    assert len(error["message"]) < 1000
    assert error["type"] in {"invalid_request_error", "server_error", "requests"}
    assert error["param"] is None or isinstance(error["param"], str)
    assert error["code"] in CODES
    for secret in ("Traceback", 'File "', "127.0.0.1", "http://", "aiohttp", "Errno"):
        assert secret not in answer.body.decode(), answer
