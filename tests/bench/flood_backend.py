"""
The backend that floods ask: it answers in ways that cost a gateway memory or time.

    python -m tests.bench.flood_backend PORT ANSWER

ANSWER is one of ANSWERS. It knows no more of vLLM's dialect than the floods need; other clients of the same
gateway ask `tests.fakes.backend`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable

MODEL = "flooded"
CONTEXT = 32_768
USAGE = {"prompt_tokens": 1, "completion_tokens": 50, "total_tokens": 51}
WHOLE_BYTES = 400_000_000
EVENTS = 5_500  # of 2 kB, 11 MB together
EVENT_BYTES, PIECE_BYTES = 1_000_000, 64
SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
FRIENDS = b',"top_logprobs":[' + b",".join([b'{"token":"y","logprob":-1.5,"bytes":[121]}'] * 20) + b"]},"
LOGPROB = b'{"token":"x","logprob":-0.1,"bytes":[120]' + FRIENDS  # about 1 kB, as 20 alternatives take

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def respond(body: object, status: int = 200) -> bytes:
    """A JSON response, with its head."""
    raw = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
    return head.encode() + raw


def event(content: str, **more: object) -> bytes:
    """One event of a stream of chat completions."""
    choice = {"index": 0, "delta": {"content": content}} | more
    return b"data: " + json.dumps({"choices": [choice], "usage": USAGE}).encode() + b"\n\n"


async def short(writer: asyncio.StreamWriter) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    writer.write(respond({"id": "x", "choices": [choice], "usage": USAGE}))


async def refusal(writer: asyncio.StreamWriter) -> None:
    writer.write(respond({"error": {"message": "no", "code": 400}}, 400))


async def open_stream(writer: asyncio.StreamWriter) -> None:
    """One event, and nothing more."""
    writer.write(SSE_HEAD + event("x"))
    await writer.drain()
    await asyncio.sleep(60)
    writer.close()


async def whole(writer: asyncio.StreamWriter) -> None:
    """A whole response of 400 MB, with logprobs."""
    count = WHOLE_BYTES // len(LOGPROB)
    head = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"x"},"logprobs":{"content":['
    tail = b'{}]},"finish_reason":"stop"}],"usage":' + json.dumps(USAGE).encode() + b"}"
    length = len(head) + count * len(LOGPROB) + len(tail)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % length)
    writer.write(head)
    block = LOGPROB * 400
    for _ in range(count // 400):
        writer.write(block)
        await writer.drain()
    writer.write(LOGPROB * (count % 400) + tail)


async def long_stream(writer: asyncio.StreamWriter) -> None:
    """11 MB in events of 2 kB, as fast as they are taken."""
    writer.write(SSE_HEAD)
    one = event("x", logprobs={"content": ["y" * 2_000]})
    for _ in range(EVENTS):
        writer.write(one)
        await writer.drain()
    writer.write(b"data: [DONE]\n\n")
    await writer.drain()
    writer.close()


async def pieces(writer: asyncio.StreamWriter) -> None:
    """One event of 1 MB, in writes of 64 bytes."""
    writer.write(SSE_HEAD + event("x"))
    raw = event("y" * EVENT_BYTES)
    for at in range(0, len(raw), PIECE_BYTES):
        writer.write(raw[at : at + PIECE_BYTES])
        await asyncio.sleep(0.0001)
    writer.write(b"data: [DONE]\n\n")
    await writer.drain()
    writer.close()


ANSWERS: dict[str, Answer] = {
    answer.__name__: answer for answer in (short, refusal, open_stream, whole, long_stream, pieces)
}


async def serve(port: int, answer: Answer) -> None:
    """Serve until interrupted."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if b"content-length:" in head:
                    await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
                path = head.split(b" ", 2)[1]
                if path == b"/health":
                    writer.write(respond({}))
                elif path == b"/v1/models":
                    card = {"id": MODEL, "max_model_len": CONTEXT}
                    writer.write(respond({"object": "list", "data": [card]}))
                else:
                    await answer(writer)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", port, limit=1 << 26) as server:
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(int(sys.argv[1]), ANSWERS[sys.argv[2]]))
