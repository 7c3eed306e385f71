"""Bodies that the client compressed, or wrote in another charset than UTF-8, are read as they were before."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from gateway.errors import GatewayError
from gateway.http.content_coding import charset_of, codings_of, decompressed, transcoded
from tests.fakes.backend import Backend
from tests.http.raw_http import BODY, MIB, PATH, Answer, assert_error, exchange, post
from tests.http.wire import ask, asked, until
from tests.serving import Running, configuration, serving


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]


def twice(data: bytes) -> bytes:
    return gzip.compress(gzip.compress(data))


def in_members(data: bytes) -> bytes:
    return gzip.compress(data[:10]) + gzip.compress(b"") + gzip.compress(data[10:])


async def send(running: Running, body: bytes, coding: str, path: str = PATH, *headers: str) -> Answer:
    return await exchange(running.url, post(path, body, f"Content-Encoding: {coding}", *headers))


@pytest.mark.parametrize(
    ("coding", "compress"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZip", in_members),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("gzip, gzip", twice),
        ("deflate,, identity , gzip", lambda data: gzip.compress(zlib.compress(data))),
        ("identity", bytes),
        ("", bytes),
        ("utf-8", bytes),
    ],
)
def test_codings(coding: str, compress: Callable[[bytes], bytes]) -> None:
    """Every coding is undone, in the reverse order in which they are named."""
    codings = codings_of({b"content-encoding": coding.encode()})

    assert b"".join(decompressed(compress(BODY), codings, MIB)) == BODY


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br", "compress", "gzip, gzip, gzip, gzip", "\xff"])
def test_unknown_coding(coding: str) -> None:
    """What is not understood is named, and `Accept-Encoding` says what is."""
    with pytest.raises(GatewayError) as caught:
        codings_of({b"content-encoding": coding.encode("latin-1")})

    assert (caught.value.status, caught.value.code) == (415, "unsupported_encoding")
    assert (b"accept-encoding", b"gzip, deflate") in caught.value.headers()


WHOLE = gzip.compress(BODY, mtime=0)  # the same in every process that collects the tests


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", BODY),
        ("gzip", b""),
        ("gzip", WHOLE[:-1]),
        ("gzip", WHOLE[:12]),
        ("gzip", WHOLE[:-8] + b"\0" * 8),
        ("gzip", WHOLE + b"garbage"),
        ("gzip", WHOLE + b"\0\0"),
        ("gzip", gzip.compress(b"", mtime=0) * 10_002),
        ("gzip, gzip", WHOLE),
        ("deflate", WHOLE),
        ("deflate", zlib.compress(BODY) + b"x"),
        ("deflate", zlib.compress(b"x" * 70_000, 0) + b"x" * 70_000),
        ("deflate", zlib.compress(BODY)[:-2]),
        ("deflate", b""),
    ],
)
def test_broken_body(coding: str, body: bytes) -> None:
    """A body that is not what its header says is the client's fault."""
    with pytest.raises(GatewayError) as caught:
        b"".join(decompressed(body, codings_of({b"content-encoding": coding.encode()}), MIB))

    assert (caught.value.status, caught.value.code) == (400, "invalid_encoding")


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, raw_deflate, twice])
def test_bomb(compress: Callable[[bytes], bytes]) -> None:
    """A body that grows without end is refused at the limit, whichever of its codings grows."""
    bomb = compress(b" " * (8 * MIB))
    codings = (
        ["gzip", "gzip"] if compress is twice else ["deflate" if compress is not gzip.compress else "gzip"]
    )
    held = 0
    tracemalloc.start()
    try:
        with pytest.raises(GatewayError) as caught:
            for block in decompressed(bomb, codings, MIB):
                held += len(block)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (caught.value.status, caught.value.code) == (413, "request_too_large")
    assert held <= MIB
    assert peak < MIB


@pytest.mark.parametrize(
    "charset", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_charset(charset: str) -> None:
    """The charset of a JSON body is found as Python's own reader finds it, which vLLM uses."""
    text = json.dumps({"é": "日本語" * 30_000}, ensure_ascii=False)
    body = text.encode(charset)
    found = charset_of(body)

    assert json.loads(body) == json.loads(text)
    assert text.encode() == (body if found is None else b"".join(transcoded(body, found, MIB)))


async def test_small_bodies(running: Running, backend: Backend) -> None:
    """The backend gets the body as it was, without the header, on any route."""
    bodies = {"gzip": gzip.compress(BODY), "deflate": zlib.compress(BODY), "identity": BODY}
    for coding, body in bodies.items():
        assert (await send(running, body, coding)).status == 200
    for charset in ("utf-8-sig", "utf-16", "utf-32-be"):
        assert (await exchange(running.url, post(PATH, BODY.decode().encode(charset)))).status == 200
    assert (await send(running, gzip.compress(BODY), "gzip", "/v1/route")).status == 200

    assert len(asked(backend)) == 6
    for request in asked(backend):
        assert request.json["messages"] == json.loads(BODY)["messages"]
        assert "content-encoding" not in request.headers


@pytest.mark.parametrize("coding", ["gzip", "deflate", "gzip, gzip", "UTF-8", "utf8, gzip"])
async def test_plain_body_that_is_said_to_be_encoded(running: Running, backend: Backend, coding: str) -> None:
    """A proxy that decompresses may leave the header, and some clients name a charset. vLLM takes both."""
    assert (await send(running, BODY, coding)).status == 200
    assert asked(backend)[0].json["messages"] == json.loads(BODY)["messages"]


async def test_refused_bodies(running: Running, backend: Backend) -> None:
    """Each fault has its status and says what is wrong; nothing reaches a backend."""
    unknown = await send(running, b"x", "br")
    assert_error(unknown, 415, "unsupported_encoding")
    assert unknown.headers["accept-encoding"] == "gzip, deflate"
    assert "'br'" in unknown.json["error"]["message"]
    assert_error(await send(running, b"[" + BODY, "gzip"), 400, "invalid_encoding")
    assert_error(await send(running, gzip.compress(b"no JSON"), "gzip"), 400, "invalid_json")
    for empty in (await send(running, gzip.compress(b""), "gzip"), await send(running, b"", "identity")):
        assert_error(empty, 400, "invalid_json")
        assert "has no body" in empty.json["error"]["message"]
    assert_error(await exchange(running.url, post(PATH, b"\xff\xfe{\0\0")), 400, "invalid_json")
    form = await send(running, gzip.compress(BODY), "gzip", PATH, "Content-Type: text/plain")
    assert_error(form, 415, "unsupported_media_type")

    assert not asked(backend)


async def test_large_bodies(backend: Backend) -> None:
    """A large body is decoded in a thread within the memory of all bodies, and a bomb ends there."""
    body = json.dumps(ask("é" * (MIB // 2)), ensure_ascii=False).encode()
    limits = {"body_bytes": 2 * MIB, "bodies_bytes": MIB}
    async with serving(configuration(backend.url, limits=limits)) as running:
        assert (await send(running, gzip.compress(body, 1), "gzip")).status == 200
        assert (await exchange(running.url, post(PATH, body.decode().encode("utf-16")))).status == 200
        assert (await exchange(running.url, post(PATH, b"\xef\xbb\xbf" + body))).status == 200
        bomb = await send(running, gzip.compress(b" " * 8 * MIB, 1), "gzip")
        await until(lambda: running.gateway._memory.bodies.used == 0)

    assert_error(bomb, 413, "request_too_large")
    assert [len(request.json["messages"][0]["content"]) for request in asked(backend)] == [MIB // 2] * 3
