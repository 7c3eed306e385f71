"""Reads the size of an image from the beginning of its file, without decoding its pixels. No I/O."""

from __future__ import annotations

import base64
import binascii
import struct

READ = 256 * 1024
"""Bytes of a file that are looked at. A photograph may carry 100 kB of metadata before its size."""

_DATA_URL = 256  # characters of a data URL in which its comma must come
_PNG = b"\x89PNG\r\n\x1a\n"
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # JPEG markers of a frame, which has the size
_SKIPPED = frozenset(
    {0xC4, 0xCC, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE}
)  # JPEG segments that every decoder skips

Size = tuple[int, int]
"""Width and height in pixels."""


def size_in_data_url(url: str) -> Size | None:
    """The size of the image in a `data:` URL with base64; None if it cannot be told for certain."""
    comma = url.find(",", 0, _DATA_URL)
    if comma < 0 or not url[:comma].lower().startswith("data:") or not url[:comma].lower().endswith("base64"):
        return None
    text = url[comma + 1 : comma + 1 + READ // 3 * 4]
    try:  # strictly: a decoder that skipped characters would read another file than the backend
        head = base64.b64decode(text[: len(text) // 4 * 4], validate=True)
    except (binascii.Error, ValueError):
        return None
    return image_size(head)


def image_size(head: bytes) -> Size | None:
    """The size of a PNG, JPEG, WebP, GIF or BMP image by the beginning of its file.

    None for other formats, and for a file that is odd or names two sizes: which one counts would be a guess.
    """
    try:
        if head.startswith(_PNG):
            size = _png(head)
        elif head.startswith(b"\xff\xd8"):
            size = _jpeg(head)
        elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            size = _webp(head)
        elif head.startswith((b"GIF87a", b"GIF89a")):
            size = _gif(head)
        elif head.startswith(b"BM"):
            size = _bmp(head)
        else:
            size = None
    except (struct.error, IndexError):
        return None
    return size if size and min(size) > 0 else None


def _png(head: bytes) -> Size | None:
    """The size in the chunk IHDR, if it is the first one and the only one before the pixels."""
    size, at = None, len(_PNG)
    while True:
        length, kind = struct.unpack_from(">I4s", head, at)
        if kind == b"IHDR":
            if size or at != len(_PNG) or length != 13:
                return None
            size = struct.unpack_from(">II", head, at + 8)
        elif kind == b"IDAT":
            return size
        at += length + 12  # with its length, its kind and its checksum


def _jpeg(head: bytes) -> Size | None:
    """The size in the header of the frame, if there is one frame before the pixels."""
    size: Size | None = None
    at = 2
    while True:
        marker = head[at + 1] if head[at] == 0xFF else 0
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xDA:  # the pixels begin
            return size
        if marker in _FRAMES and not size:
            height, width = struct.unpack_from(">HH", head, at + 5)
            size = width, height
        elif marker not in _SKIPPED:  # decoders disagree about where the next segment begins
            return None
        at += 2 + struct.unpack_from(">H", head, at + 2)[0]


def _webp(head: bytes) -> Size | None:
    """The size of the canvas, or of the only picture."""
    kind = head[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
        return (width, height) if len(head) >= 30 else None
    if kind == b"VP8L" and head[20] == 0x2F:
        bits = struct.unpack_from("<I", head, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _gif(head: bytes) -> Size | None:
    """The size of the screen, or of the first picture where that reaches beyond it."""
    width, height, flags = struct.unpack_from("<HHB", head, 6)
    at = 13 + (6 << (flags & 7) if flags & 0x80 else 0)  # behind the table of colours
    while head[at] == 0x21:  # an extension in blocks, up to an empty one
        at += 2
        while head[at]:
            at += head[at] + 1
        at += 1
    if head[at] != 0x2C:
        return None
    left, top, columns, rows = struct.unpack_from("<HHHH", head, at + 1)
    return max(width, left + columns), max(height, top + rows)


def _bmp(head: bytes) -> Size | None:
    """The size in a header of the usual kinds; rows from top to bottom have a negative height."""
    kind, width, height = struct.unpack_from("<Iii", head, 14)
    return (width, abs(height)) if kind in (40, 108, 124) else None
