"""The size of an image is read from its header, and never guessed."""

from __future__ import annotations

import base64
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.openai_api.images import READ, image_size, size_in_data_url


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def png(width: int, height: int, *between: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + header(width, height) + b"".join(between) + chunk(b"IDAT", b"")


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def frame(width: int, height: int, marker: int = 0xC0) -> bytes:
    return segment(marker, struct.pack(">BHHB", 8, height, width, 3) + bytes(9))


def jpeg(*segments: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(segments) + segment(0xDA, bytes(6)) + b"pixels"


def webp(kind: bytes, data: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(data) + 12) + b"WEBP" + kind + struct.pack("<I", len(data)) + data


def lossless(width: int, height: int) -> bytes:
    return webp(b"VP8L", b"\x2f" + struct.pack("<I", width - 1 | (height - 1) << 14))


def gif(width: int, height: int, *, screen: tuple[int, int], colours: int = 0) -> bytes:
    table = bytes(3 * 2**colours) if colours else b""
    flags = 0x80 | colours - 1 if colours else 0
    comment = b"\x21\xfe\x03abc\x02de\0"
    picture = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0)
    return b"GIF89a" + struct.pack("<HHBBB", *screen, flags, 0, 0) + table + comment + picture


def bmp(width: int, height: int) -> bytes:
    return b"BM" + bytes(12) + struct.pack("<Iii", 40, width, height) + bytes(28)


sides = st.integers(1, 16_000)


@given(sides, sides)
def test_every_format(width: int, height: int) -> None:
    """The size is where each format has it, behind whatever may come before."""
    canvas = b"\x10\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    lossy = b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height)
    exif = segment(0xE1, b"\xff\xc0" * 30_000)
    files = [
        png(width, height),
        png(width, height, chunk(b"eXIf", bytes(1000))),
        jpeg(frame(width, height)),
        jpeg(exif, segment(0xDB, bytes(65)), b"\xff" + frame(width, height, 0xC2), segment(0xC4, bytes(20))),
        webp(b"VP8X", canvas),
        webp(b"VP8 ", lossy),
        lossless(width, height),
        gif(width, height, screen=(1, 1)),
        gif(1, 1, screen=(width, height), colours=8),
        bmp(width, -height),
    ]

    for file in files:
        assert image_size(file) == (width, height)
        url = "DATA:image/x;name=a;Base64," + base64.b64encode(file).decode()
        assert size_in_data_url(url) == (width, height)


@pytest.mark.parametrize(
    "file",
    [
        png(10, 10, header(9000, 9000)),  # the last size before the pixels is the one that Pillow uses
        b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b"x") + header(9, 9) + chunk(b"IDAT", b""),
        jpeg(frame(10, 10), frame(9000, 9000)),
        jpeg(frame(10, 10), segment(0xF0, frame(9000, 9000))),  # Pillow looks into such a segment
        jpeg(frame(10, 10), b"\xff\xd8"),
        jpeg(b"junk", frame(10, 10)),
        jpeg(),
        png(0, 10),
        png(10, 10)[:20],
        b"GIF89a\x0a\0\x0a\0",
        b"BM" + bytes(60),
        b"II*\0" + bytes(60),
        gif(9, 9, screen=(9, 9)).replace(b"\x2c", b"\x3b"),
        b"",
    ],
)
def test_what_is_odd_has_no_size(file: bytes) -> None:
    """A file that names two sizes, none, or an unknown format has none, so it counts as the largest."""
    assert image_size(file) is None


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png," + "a" * 100,
        "data:image/png;base64," + base64.urlsafe_b64encode(png(0xFBFFFF, 0xFBFFFF)).decode(),
        "data:image/png;base64,\n" + base64.b64encode(png(3, 3)).decode(),
        "data:image/png;base64," + base64.b64encode(png(3, 3)).decode()[:10],
        "data:" + "x" * 5000 + ";base64," + base64.b64encode(png(3, 3)).decode(),
        "https://example.com/a.png;base64," + base64.b64encode(png(3, 3)).decode(),
        "data:image/png;base64",
        "",
    ],
)
def test_addresses_without_a_size(url: str) -> None:
    """What is not base64 in one piece is not decoded: decoders disagree about it."""
    assert size_in_data_url(url) is None


@given(
    st.binary(max_size=400), st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF1234WEBPVP8 "])
)
def test_any_bytes(data: bytes, magic: bytes) -> None:
    """No file breaks the reader."""
    size = image_size(magic + data)

    assert size is None or min(size) > 0


def test_only_the_beginning_is_read() -> None:
    """A size behind 256 kB of metadata is not looked for."""
    far = jpeg(*[segment(0xE1, bytes(60_000))] * (READ // 60_000 + 1), frame(10, 10))

    assert size_in_data_url("data:image/jpeg;base64," + base64.b64encode(far).decode()) is None
