"""Reads the usage and the choices of an event that names its usage."""

from __future__ import annotations

from contextlib import suppress

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.openai_api.counts import loose_object, strict_json
from gateway.openai_api.event_stream import event_data


class UsageChunk(Struct):
    """The parts of a chunk that say whether its usage is that of the whole stream."""

    usage: Raw | UnsetType = UNSET
    choices: Raw = Raw(b"null")


_chunk = msgspec.json.Decoder(UsageChunk)


def read_chunk(event: bytes) -> UsageChunk | None:
    """The usage and the choices of an event; None if it has no data that can be read."""
    if b'"usage"' not in (payload := event.partition(b"data:")[2]):
        return None
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _chunk.decode(payload)
    read = loose_object(event_data(event))
    return None if read is None else _chunk.decode(strict_json(read))
