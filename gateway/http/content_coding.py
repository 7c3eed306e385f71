"""Undoes what a client did to the bytes of its body: compression, and another charset than UTF-8. No I/O.

The bytes come and go in blocks, so that a body which grows a thousandfold is refused long before it is held.
"""

from __future__ import annotations

import codecs
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping

from gateway.errors import InvalidJson, RequestTooLarge
from gateway.http.errors import BrokenContentCoding, UnsupportedContentCoding

_BLOCK = 1 << 16
"""Bytes of a body that are decoded at once, and that come of it at once."""
_MOST_CODINGS = 3
"""A body is compressed once. More is a mistake, or meant to cost time."""
_MOST_MEMBERS = 10_000
"""Parts of a gzip body, each with a header of its own. Tools that compress in blocks make one per 64 KiB."""
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_NO_CODINGS = frozenset((b"", b"identity", b"utf-8", b"utf8"))
"""Words that change nothing. Some clients name the charset here."""
_CODINGS = {b"gzip": "gzip", b"x-gzip": "gzip", b"deflate": "deflate"}


def codings_of(headers: Mapping[bytes, bytes]) -> list[str]:
    """The codings that were applied to a body, the last one first: `Content-Encoding: deflate, gzip`.

    Raises: UnsupportedContentCoding.
    """
    given = headers.get(b"content-encoding")
    if given is None:
        return []
    words = [word.strip().lower() for word in given.split(b",")]
    words = [word for word in words if word not in _NO_CODINGS]
    for word in words:
        if word not in _CODINGS:
            name = word[:40].decode("ascii", "replace")
            raise UnsupportedContentCoding(
                f"The Content-Encoding {name!r} is not understood, only gzip and deflate"
            )
    if len(words) > _MOST_CODINGS:
        raise UnsupportedContentCoding(f"The Content-Encoding names more than {_MOST_CODINGS} codings")
    return [_CODINGS[word] for word in reversed(words)]


def charset_of(body: bytes) -> str | None:
    """The charset of JSON, from its first bytes as Python's `json.loads` finds it; None for plain UTF-8."""
    if body[:1] == b"{" and body[1:2] != b"\0":
        return None
    found = json.detect_encoding(body[:4])
    return None if found == "utf-8" else found


def decompressed(body: bytes, codings: Iterable[str], most: int) -> Iterator[bytes]:
    """The blocks of a compressed body. Some may be empty, so that no step takes long.

    most: bytes that the body may have, after any of the codings.

    Raises: BrokenContentCoding, RequestTooLarge.
    """
    blocks = _blocks(body)
    for coding in codings:
        blocks = _bounded(_gunzip(blocks) if coding == "gzip" else _inflate(blocks), most)
    return blocks


def transcoded(body: bytes, charset: str, most: int) -> Iterator[bytes]:
    """The blocks of a body in UTF-8. Raises: InvalidJson, RequestTooLarge."""
    return _bounded(_recode(body, charset), most)


def _blocks(body: bytes) -> Iterator[bytes]:
    return (body[at : at + _BLOCK] for at in range(0, len(body), _BLOCK))


def _bounded(blocks: Iterable[bytes], most: int) -> Iterator[bytes]:
    size = 0
    for block in blocks:
        size += len(block)
        if size > most:
            raise RequestTooLarge(f"The request body is larger than {most} bytes when it is decoded")
        yield block


def _gunzip(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """A gzip body is a sequence of members, each compressed by itself."""
    members, stream = 0, zlib.decompressobj(_GZIP)
    for block in blocks:
        rest = block
        while rest:
            if stream.eof:
                stream = zlib.decompressobj(_GZIP)
            yield from _drained(stream, rest)
            rest = stream.unused_data
            members += stream.eof
            if members > _MOST_MEMBERS:
                raise BrokenContentCoding("The gzip body has too many members")
    if not stream.eof:
        raise BrokenContentCoding("The gzip body ends early")


def _inflate(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """`deflate` means the format of zlib. Some programs send the data without the header of zlib."""
    stream = None
    for block in blocks:
        if stream is None:
            stream = zlib.decompressobj(_ZLIB if _begins_zlib(block) else _RAW)
        elif stream.eof:
            raise BrokenContentCoding("The deflate body has more bytes behind its end")
        yield from _drained(stream, block)
        if stream.unused_data:
            raise BrokenContentCoding("The deflate body has more bytes behind its end")
    if stream is None or not stream.eof:
        raise BrokenContentCoding("The deflate body ends early")


def _begins_zlib(block: bytes) -> bool:
    """RFC 1950, 2.2: method 8, and a check that makes the first two bytes a multiple of 31."""
    return block[0] & 15 == 8 and int.from_bytes(block[:2]) % 31 == 0


def _drained(stream: zlib._Decompress, block: bytes) -> Iterator[bytes]:
    """What a block decompresses to, in blocks."""
    while True:
        try:
            made = stream.decompress(block, _BLOCK)
        except zlib.error:
            raise BrokenContentCoding("The compressed body is broken") from None
        yield made
        block = stream.unconsumed_tail
        if stream.eof or (not block and len(made) < _BLOCK):
            return


def _recode(body: bytes, charset: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(charset)()
    try:
        for block in _blocks(body):
            yield decoder.decode(block).encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError:
        name = charset.upper().replace("-SIG", "")
        raise InvalidJson(f"The request body is not valid {name}, which it seems to be written in") from None
